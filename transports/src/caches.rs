//! How large this machine's caches are.

use std::sync::OnceLock;

/// Bytes of a processor's second cache and of the third that it shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caches {
    pub(crate) second: u64,
    pub(crate) third: u64,
}

/// Where the system does not say: of ordinary servers.
const USUAL: Caches = Caches { second: 1 << 20, third: 32 << 20 };

/// Where Linux says.
const FOLDER: &str = "/sys/devices/system/cpu/cpu0/cache";

impl Caches {
    /// This machine's.
    pub(crate) fn here() -> Caches {
        static HERE: OnceLock<Caches> = OnceLock::new();
        *HERE.get_or_init(|| Self::told_by(|file| std::fs::read_to_string(format!("{FOLDER}/{file}")).ok()))
    }

    fn told_by(read: impl Fn(&str) -> Option<String>) -> Caches {
        let of_level = |level: &str| {
            (0..8).find_map(|index| {
                let tell = |what: &str| read(&format!("index{index}/{what}"));
                let is_it = tell("level")?.trim() == level && tell("type")?.trim() != "Instruction";
                is_it.then(|| tell("size").and_then(|size| bytes(size.trim()))).flatten()
            })
        };
        Caches { second: of_level("2").unwrap_or(USUAL.second), third: of_level("3").unwrap_or(USUAL.third) }
    }
}

/// `1024K` or `32M`.
fn bytes(size: &str) -> Option<u64> {
    let (number, unit) = match size.strip_suffix('K') {
        Some(number) => (number, 1 << 10),
        None => (size.strip_suffix('M')?, 1 << 20),
    };
    number.parse::<u64>().ok()?.checked_mul(unit).filter(|&bytes| bytes > 0)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn caches_are_what_the_system_says_and_usual_where_it_says_nothing() {
        let files = |file: &str| {
            let text = match file {
                "index0/level" | "index1/level" => "1\n",
                "index1/type" => "Instruction\n",
                "index2/level" => "2\n",
                "index3/level" => "3\n",
                "index0/type" | "index2/type" | "index3/type" => "Unified\n",
                "index0/size" => "48K\n",
                "index2/size" => "2048K\n",
                "index3/size" => "105M\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        assert_eq!(Caches::told_by(files), Caches { second: 2 << 20, third: 105 << 20 });
        assert_eq!(Caches::told_by(|_| None), USUAL);
        assert_eq!(Caches::told_by(|_| Some("2".to_owned())), USUAL);
        assert_eq!(
            (bytes("0K"), bytes("K"), bytes("12"), bytes("99999999999999999999M")),
            (None, None, None, None)
        );
    }
}
