//! The veth pair between whose ends the kernel cuts trains of ESP; see [`datapath::port::esp_device`]. Both ends are in a
//! namespace without a name, so that the host sees nothing of it, and that goes with the process.

use std::io;
use std::os::fd::AsFd;

use datapath::port::esp_device::Lane;

use super::member::{in_thread, new_namespace};
use super::netlink::{Netlink, NewLink};

const NEAR: &str = "near";
const FAR: &str = "far";

/// Makes one.
pub async fn open() -> io::Result<Lane> {
    in_thread(|| {
        let namespace = new_namespace()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let netlink = Netlink::open()?;
            let end = |name: &'static str| NewLink { name, mac: super::mac_for(&[name]), mtu: Lane::MTU };
            netlink.add_veth(&end(NEAR), &end(FAR), namespace.as_fd()).await?;
            // The near end last: it has its carrier at once then, and is ready to send. What is sent by one that waits for its
            // carrier is dropped without a word.
            for name in [FAR, NEAR] {
                netlink.set_up(netlink.link(name).await?.index, true).await?;
            }
            io::Result::Ok(())
        })?;
        Lane::open(NEAR, FAR)
    })
    .await
}
