//! What the package managers run. Each script only calls the loader, which knows what is right.

use super::name::Name;

/// The scripts of both formats; none for a package that only has files.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Scripts {
    /// deb: after its files are there, and when something that was begun is taken back.
    pub postinst: Option<String>,
    /// deb: before its files go.
    pub prerm: Option<String>,
    /// rpm: after its files are there.
    pub post: Option<String>,
    /// rpm: before its files go.
    pub preun: Option<String>,
}

impl Scripts {
    /// Of a scheduler's package. POSIX sh.
    ///
    /// A deb that is upgraded keeps the old scheduler running until the new package's postinst switches from one to
    /// the other. rpm runs `%post` of the new package before `%preun` of the old one, whatever came of it. `$1` is how
    /// many of that name stay: 1 after an upgrade, and when one of several that `rpm -i` put side by side is removed;
    /// the loader tells the two apart.
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
