//! Which machine this is, as far as costs measured on it depend on that.

/// Its processor and how many CPUs are on line: `AMD EPYC 9B14, 2 CPUs`. Machines that are alike are the same.
pub(crate) fn identity() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    format!("{}, {}", processor(&info), cpus(&info))
}

/// Its name, or what ARM tells instead.
fn processor(info: &str) -> String {
    let value = |key: &str| {
        let line = info.lines().find(|line| line.split(':').next().is_some_and(|name| name.trim() == key))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let part = || Some(format!("{} part {}", value("CPU implementer")?, value("CPU part")?));
    value("model name").or_else(part).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn cpus(info: &str) -> String {
    let count =
        info.lines().filter(|line| line.split(':').next().is_some_and(|key| key.trim() == "processor"));
    match count.count() {
        1 => "1 CPU".to_owned(),
        count => format!("{count} CPUs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_its_processor_and_how_many() {
        let x86 = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nprocessor\t: 1\nmodel name\t: Some CPU @ 2 GHz\n";
        assert_eq!((processor(x86).as_str(), cpus(x86).as_str()), ("Some CPU @ 2 GHz", "2 CPUs"));
        let arm = "processor\t: 0\nCPU implementer\t: 0x48\nCPU part\t: 0xd01\n";
        assert_eq!((processor(arm).as_str(), cpus(arm).as_str()), ("0x48 part 0xd01", "1 CPU"));
        assert_eq!(processor(""), std::env::consts::ARCH);
        assert_eq!(identity(), identity());
    }
}
