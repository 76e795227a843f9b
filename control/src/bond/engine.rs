//! Which member of an active-backup bond is the active one. Link states and time in; no I/O. The rules are Open vSwitch's.
//!
//! A member whose link comes is enabled after `updelay`, one whose link goes is disabled after `downdelay`; a change of
//! mind in between starts over. The active member stays while it is enabled, unless there is a primary, which always
//! comes first. Where none is enabled, the one that would be next is enabled at once.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::devices::mac_text;

/// Milliseconds on a clock that does not jump.
pub type Millis = i64;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// What the row says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `bond_updelay`.
    pub updelay: Millis,
    /// `bond_downdelay`.
    pub downdelay: Millis,
    /// `other_config:bond-primary`.
    pub primary: Option<String>,
    /// `other_config:bond-hash-basis`. It is shown, and means nothing without balancing.
    pub hash_basis: u32,
    /// `lacp` is on, and so is `other_config:lacp-fallback-ab`.
    pub fallback: bool,
}

/// A bond.
#[derive(Debug)]
pub struct Bond {
    name: String,
    settings: Settings,
    members: BTreeMap<String, Member>,
    active: Option<String>,
    /// Address of the member that is, or was, the active one; zero when there is none. Unlike names it outlives a reboot.
    active_mac: Mac,
    /// Another member was chosen, and the neighbours do not know.
    moved: bool,
}

#[derive(Debug)]
struct Member {
    mac: Mac,
    /// Its link is up, as far as those can tell who watch it.
    may_enable: bool,
    enabled: bool,
    /// When `enabled` follows the link.
    expires: Option<Millis>,
}

/// What was asked of a bond by name cannot be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has no such member.
    #[error("no such member")]
    NoMember,
    /// The member is disabled.
    #[error("cannot make disabled member active")]
    Disabled,
}

impl Bond {
    /// Without members. `last`: the address of the member that was active in an earlier run, zero for none.
    pub fn new(name: impl Into<String>, settings: Settings, last: Mac) -> Bond {
        let (name, members) = (name.into(), BTreeMap::new());
        Bond { name, settings, members, active: None, active_mac: last, moved: false }
    }

    /// The row has changed.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Has these members, by name, each with its address and whether its link is up. New ones begin as their link is;
    /// where the active one goes, another takes its place.
    pub fn follow(&mut self, members: &BTreeMap<String, (Mac, bool)>, now: Millis) {
        self.members.retain(|name, _| members.contains_key(name));
        for (name, &(mac, up)) in members {
            if let Some(member) = self.members.get_mut(name) {
                member.may_enable = up;
                member.mac = mac;
                continue;
            }
            let new = Member { mac, may_enable: up, enabled: false, expires: None };
            self.members.entry(name.clone()).or_insert(new).enable(name, up);
        }
        if self.active.as_ref().is_some_and(|active| !self.members.contains_key(active)) {
            self.choose(now);
        }
        if let Some(member) = self.active.as_ref().and_then(|name| self.members.get(name)) {
            self.active_mac = member.mac;
        }
    }

    /// Lets links and time have their effect.
    pub fn run(&mut self, now: Millis) {
        let Settings { updelay, downdelay, .. } = self.settings;
        for (name, member) in &mut self.members {
            member.follow_link(name, updelay, downdelay, now);
        }
        let primary = self.primary().filter(|(_, member)| member.enabled).map(|(name, _)| name);
        let stays = self.active.as_ref().is_some_and(|active| {
            self.members.get(active).is_some_and(|member| member.enabled)
                && primary.is_none_or(|primary| primary == active)
        });
        if !stays {
            self.choose(now);
        }
    }

    /// When [`Bond::run`] has something to do, if no link changes.
    pub fn due(&self) -> Option<Millis> {
        self.members.values().filter_map(|member| member.expires).min()
    }

    /// The member that frames pass through. None: every link is down.
    pub fn active(&self) -> Option<&str> {
        self.active.as_deref()
    }

    /// Whether another member than `member` is active, whose link would still do.
    pub fn leaves(&self, member: &str) -> bool {
        self.active().is_some_and(|active| active != member)
            && self.members.get(member).is_some_and(|m| m.enabled)
    }

    /// Its address, as `bond_active_slave` has it: zero where none is active.
    pub fn active_mac(&self) -> Mac {
        self.active_mac
    }

    /// Once after each choice: neighbours are to be told where addresses are now.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved) && self.active.is_some()
    }

    /// `bond/set-active-member`. False: it was that already.
    ///
    /// # Errors
    /// There is no such member, or it is disabled.
    pub fn set_active(&mut self, name: &str) -> Result<bool, Refused> {
        let member = self.members.get(name).ok_or(Refused::NoMember)?;
        if !member.enabled {
            return Err(Refused::Disabled);
        }
        if self.active.as_deref() == Some(name) {
            return Ok(false);
        }
        tracing::info!("bond {}: active member is now {name}", self.name);
        (self.active, self.active_mac, self.moved) = (Some(name.to_owned()), member.mac, true);
        Ok(true)
    }

    /// `bond/enable-member` and `bond/disable-member`: it lasts until the link's state has its effect again.
    ///
    /// # Errors
    /// There is no such member.
    pub fn enable(&mut self, name: &str, enable: bool) -> Result<(), Refused> {
        self.members.get_mut(name).ok_or(Refused::NoMember)?.enable(name, enable);
        Ok(())
    }

    /// The names of the members.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// `bond/show`.
    pub fn show(&self, now: Millis) -> String {
        let Settings { updelay, downdelay, primary, hash_basis, fallback } = &self.settings;
        let missing = primary.is_some() && self.primary().is_none();
        let active = self.members.iter().find(|(_, member)| member.mac == self.active_mac);
        let mut out = format!(
            "---- {} ----\n\
             bond_mode: active-backup\n\
             bond may use recirculation: no, Recirc-ID : -1\n\
             bond-hash-basis: {hash_basis}\n\
             lb_output action: disabled, bond-id: -1\n\
             updelay: {updelay} ms\n\
             downdelay: {downdelay} ms\n\
             lacp_status: {}\n\
             lacp_fallback_ab: {fallback}\n\
             active-backup primary: {}{}\n\
             active member mac: {}({})\n",
            self.name,
            if *fallback { "configured" } else { "off" },
            primary.as_deref().unwrap_or("<none>"),
            if missing { " (no such member)" } else { "" },
            mac_text(self.active_mac),
            active.map_or("none", |(name, _)| name),
        );
        for (name, member) in &self.members {
            let enabled = if member.enabled { "enabled" } else { "disabled" };
            let _ = write!(out, "\nmember {name}: {enabled}\n");
            if self.active.as_ref() == Some(name) {
                out += "  active member\n";
            }
            if let Some(expires) = member.expires {
                let delay = if member.enabled { "downdelay" } else { "updelay" };
                let _ = writeln!(out, "  {delay} expires in {} ms", expires - now);
            }
            let _ = writeln!(out, "  may_enable: {}", member.may_enable);
        }
        out.push('\n');
        out
    }

    fn primary(&self) -> Option<(&String, &Member)> {
        self.members.get_key_value(self.settings.primary.as_ref()?)
    }

    fn choose(&mut self, now: Millis) {
        let before = self.active.take();
        let Some(name) = self.best().cloned() else {
            if before.is_some() {
                self.active_mac = [0; 6];
                tracing::info!("bond {}: all members disabled", self.name);
            }
            return;
        };
        if let Some(member) = self.members.get_mut(&name) {
            if member.enabled {
                tracing::info!("bond {}: active member is now {name}", self.name);
            } else {
                tracing::info!(
                    "bond {}: active member is now {name}, skipping remaining {} ms updelay (since no member was enabled)",
                    self.name,
                    member.expires.map_or(0, |expires| expires - now)
                );
                member.enable(&name, true);
            }
            self.active_mac = member.mac;
        }
        (self.active, self.moved) = (Some(name), true);
    }

    /// Of those that are enabled the primary, the one that was last active, any; else the one that will be first.
    fn best(&self) -> Option<&String> {
        let enabled = || self.members.iter().filter(|(_, member)| member.enabled);
        let primary = self.primary().filter(|(_, member)| member.enabled);
        let coming = || {
            let waiting = self.members.iter().filter(|(_, member)| member.may_enable);
            waiting.filter(|(_, member)| member.expires.is_some()).min_by_key(|(_, member)| member.expires)
        };
        let found = primary
            .or_else(|| enabled().find(|(_, member)| member.mac == self.active_mac))
            .or_else(|| enabled().next())
            .or_else(coming);
        found.map(|(name, _)| name)
    }
}

impl Member {
    fn follow_link(&mut self, name: &str, updelay: Millis, downdelay: Millis, now: Millis) {
        let up = self.may_enable;
        let (state, change) = if up { ("up", "enabled") } else { ("down", "disabled") };
        if (up == self.enabled) != self.expires.is_none() {
            tracing::info!("member {name}: link state {state}");
            if up == self.enabled {
                self.expires = None;
                tracing::info!("member {name}: will not be {}", if up { "disabled" } else { "enabled" });
            } else {
                let delay = if up { updelay } else { downdelay };
                self.expires = Some(now.saturating_add(delay));
                if delay > 0 {
                    tracing::info!("member {name}: will be {change} if it stays {state} for {delay} ms");
                }
            }
        }
        if self.expires.is_some_and(|expires| expires <= now) {
            self.enable(name, up);
        }
    }

    fn enable(&mut self, name: &str, enable: bool) {
        self.expires = None;
        if std::mem::replace(&mut self.enabled, enable) != enable {
            tracing::info!("member {name}: {}", if enable { "enabled" } else { "disabled" });
        }
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
