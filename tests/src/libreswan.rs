//! libreswan in a guest, with the kernel's ESP.

use crate::cli::poll;
use crate::guest::Guest;
use crate::interop::{Auth, Connection, Peer};
use crate::pki::Pair;
use crate::topology::Shell;

/// A running pluto with one connection. It ends with its guest.
#[derive(Debug)]
pub struct Libreswan<'a> {
    guest: &'a Guest<'a>,
}

impl<'a> Libreswan<'a> {
    /// Unpacks and starts it.
    #[track_caller]
    pub fn start(guest: &'a Guest<'_>) -> Libreswan<'a> {
        guest.load_esp();
        guest.install("libreswan");
        guest.put(
            "/etc/ipsec.conf",
            "config setup\n    logfile=/run/pluto.log\n    logtime=yes\n    uniqueids=yes\ninclude /etc/ipsec.d/*.conf",
        );
        guest.put("/etc/ipsec.secrets", "include /etc/ipsec.d/*.secrets");
        guest.sh("mkdir -p /run/pluto /var/lib/ipsec/nss /etc/ipsec.d
            ipsec initnss
            ipsec pluto --config /etc/ipsec.conf");
        poll("pluto", || guest.try_sh("ipsec whack --status").success().then_some(()));
        Libreswan { guest }
    }

    /// Replaces its connection. `ike` and `esp` may be empty: then its own choice.
    #[track_caller]
    pub fn load(&self, c: &Connection) {
        let (secret, auth) = match c.auth {
            Auth::Psk(key) => {
                (format!("{} {} : PSK \"{key}\"", c.local, c.remote), "    authby=secret".to_owned())
            }
            Auth::Authority { own, authority, name } => {
                self.import(own, authority);
                (String::new(), format!("{}\n    rightid=@{name}\n    rightca=%same", signs(own)))
            }
            Auth::Pinned { own, other } => {
                self.import(own, own);
                self.guest.put("/run/other.pem", &other.cert_pem());
                self.guest.sh(&format!("{NSS} -A -n {} -t ,, -a -i /run/other.pem", other.name));
                let id = &other.name;
                (String::new(), format!("{}\n    rightid=@{id}\n    rightcert={id}", signs(own)))
            }
        };
        let word = |name: &str, value: &str| match value {
            "" => String::new(),
            value => format!("    {name}={value}\n"),
        };
        let Connection { local, remote, more, .. } = c;
        let udp = if c.udp { "yes" } else { "auto" };
        let algorithms = word("ike", c.ike) + &word("esp", c.esp);
        self.guest.put("/etc/ipsec.d/gre.secrets", &secret);
        self.guest.put(
            "/etc/ipsec.d/gre.conf",
            &format!(
                "conn gre\n    left={local}\n    right={remote}\n    type=transport\n    ikev2=insist\n    \
                 leftprotoport=gre\n    rightprotoport=gre\n    encapsulation={udp}\n{algorithms}{auth}\n{more}"
            ),
        );
        let trap = if c.trap { "; ipsec auto --route gre" } else { "" };
        self.guest.sh(&format!("ipsec auto --rereadall; ipsec auto --replace gre{trap}"));
    }

    /// Its key and certificate, and who signed it, go into its database.
    fn import(&self, own: &Pair, authority: &Pair) {
        self.guest.put("/run/own.pem", &format!("{}{}", own.cert_pem(), own.key_pem()));
        self.guest.put("/run/ca.pem", &authority.cert_pem());
        self.guest.sh(&format!(
            "openssl pkcs12 -export -passout pass:x -in /run/own.pem -name {} -out /run/own.p12
             pk12util -i /run/own.p12 -d sql:/var/lib/ipsec/nss -W x -K ''
             {NSS} -A -n authority -t CT,, -a -i /run/ca.pem",
            own.name
        ));
    }
}

const NSS: &str = "certutil -d sql:/var/lib/ipsec/nss";

fn signs(own: &Pair) -> String {
    // it does not tell from the certificate
    let ecdsa = own.key_pem().contains("BEGIN EC PRIVATE KEY");
    let by = if ecdsa { "ecdsa" } else { "rsasig" };
    format!("    authby={by}\n    leftid=@{}\n    leftcert={}", own.name, own.name)
}

impl Peer for Libreswan<'_> {
    #[track_caller]
    fn initiate(&self) {
        let out = self.guest.try_sh("timeout 30 ipsec auto --up gre");
        assert!(out.success(), "{out:?}\n{}", self.describe());
    }

    #[track_caller]
    fn rekey_child(&self) {
        self.guest.sh("timeout 30 ipsec whack --rekey-ipsec --name gre");
    }

    #[track_caller]
    fn rekey_ike(&self) {
        self.guest.sh("timeout 30 ipsec whack --rekey-ike --name gre");
    }

    #[track_caller]
    fn terminate(&self) {
        self.guest.sh("timeout 30 ipsec auto --down gre || true");
    }

    #[track_caller]
    fn children(&self) -> usize {
        self.guest.sh("ipsec whack --trafficstatus").lines().filter(|l| l.contains("type=ESP")).count()
    }

    fn describe(&self) -> String {
        self.guest.try_sh("ip -s xfrm state; tail -n 60 /run/pluto.log").stdout
    }
}

impl Drop for Libreswan<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- libreswan\n{}", self.describe());
        }
    }
}
