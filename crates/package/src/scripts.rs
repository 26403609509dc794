//! The scripts that the package managers run. Each only calls the loader, which knows what to do.

use super::name::Name;

/// The scripts of both formats; all `None` for a package that only has files.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Scripts {
    /// deb: after its files were installed, and when an operation is aborted.
    pub postinst: Option<String>,
    /// deb: before its files are removed.
    pub prerm: Option<String>,
    /// rpm: after its files were installed.
    pub post: Option<String>,
    /// rpm: before its files are removed.
    pub preun: Option<String>,
}

impl Scripts {
    /// The scripts of a scheduler's package, in POSIX sh.
    ///
    /// When a deb is upgraded, the old scheduler keeps running until the new package's postinst switches from one to
    /// the other. rpm runs `%post` of the new package before `%preun` of the old one, even if `%post` failed. `$1` is
    /// the number of packages of that name that stay: it is 1 after an upgrade, and also when one of several that
    /// `rpm -i` installed side by side is removed; the loader tells the two apart.
    pub fn of_scheduler(name: &Name) -> Scripts {
        let payload = format!("payload={}\n", name.payload_dir());
        let loader = "\"$payload/schedswap-loader\"";
        let postinst = format!(
            "#!/bin/sh\nset -e\n{payload}\
             case \"$1\" in\n\
             configure | abort-upgrade | abort-remove | abort-deconfigure)\n\
             \t{loader} install \"$payload\"\n\
             \t;;\n\
             esac\n"
        );
        let prerm = format!(
            "#!/bin/sh\nset -e\n{payload}\
             case \"$1\" in\n\
             remove | deconfigure)\n\
             \t{loader} remove \"$payload\"\n\
             \t;;\n\
             esac\n"
        );
        Scripts {
            postinst: Some(postinst),
            prerm: Some(prerm),
            post: Some(format!("{payload}{loader} install \"$payload\"\n")),
            preun: Some(format!(
                "{payload}if [ \"$1\" -gt 0 ]; then\n\t{loader} forget \"$payload\"\nelse\n\t{loader} remove \"$payload\"\nfi\n"
            )),
        }
    }
}
