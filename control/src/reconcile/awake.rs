//! `other_config:keep-awake`: whether cores of this host are kept from halting while short frames go to and fro.

use datapath::handle::KeepAwake;

use super::Reconciler;
use super::wanted::Wanted;

/// Reads the option. Err: the warning for the log; it is as if it were not there.
pub fn read(text: Option<&str>) -> Result<KeepAwake, String> {
    match text {
        None | Some("auto") => Ok(KeepAwake::Auto),
        Some("true") => Ok(KeepAwake::Always),
        Some("false") => Ok(KeepAwake::Never),
        Some(other) => {
            Err(format!("other_config:keep-awake '{other}' is none of 'auto', 'true' and 'false'"))
        }
    }
}

impl Reconciler {
    /// Tells the datapath, if it is news.
    pub(super) fn keep_awake(&mut self, wanted: &Wanted) {
        let wish = wanted.host.keep_awake;
        if self.awake.replace(wish) != Some(wish) && !self.datapath.keep_awake(wish) {
            tracing::warn!(
                "other_config:keep-awake=true has no effect: it wants a cpuidle driver and /dev/cpu_dma_latency"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_option() {
        for (text, is) in [
            (None, KeepAwake::Auto),
            (Some("auto"), KeepAwake::Auto),
            (Some("true"), KeepAwake::Always),
            (Some("false"), KeepAwake::Never),
        ] {
            assert_eq!(read(text), Ok(is));
        }
        let why = read(Some("often")).unwrap_err();
        assert!(why.contains("'often'") && why.contains("'auto', 'true' and 'false'"), "{why}");
    }
}
