//! A real server: Apache as it comes with Debian, whose workers serve each request by a script, and are replaced.

use std::fs;
use std::io::{Error, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::paced::{self, Moment};
use crate::parts::ready;
use crate::peers::{kill, peer};
use crate::running::Workload;
use crate::support::{ORDINARY_USER, wait_for};
use crate::{Said, Skipped};

/// Name and function.
pub const APACHE: (&str, fn() -> !) = ("apache", apache);

/// What answers a request: a pipeline.
const SCRIPT: &str = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nseq 100 | sort | head -n 1\n";

/// As many clients ask at a time, each so long after the last answer.
const CLIENTS: usize = 4;
const BETWEEN_REQUESTS: Duration = Duration::from_millis(20);

/// Apache in the working directory, where the test has put what it needs.
fn apache() -> ! {
    let program = peer("apache2").expect("the test has asked, too");
    let libraries = program.with_file_name("lib");
    let mut command = Command::new(program);
    command.args(["-D", "FOREGROUND", "-d"]).arg(std::env::current_dir().unwrap()).args(["-f", "apache.conf"]);
    ready();
    panic!("{}", command.env("LD_LIBRARY_PATH", libraries).exec())
}

/// Apache is asked by this process, which is not in its cgroup, as long as it is watched.
pub fn under_load() -> Result<Vec<Said>, Skipped> {
    let Some(program) = peer("apache2") else { return Err(Skipped) };
    let directory = tempfile::Builder::new().prefix("taskstats-").tempdir_in("/tmp").unwrap();
    let path = directory.path();
    let script = path.join("script");
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    fs::write(path.join("apache.conf"), configuration(path, program.parent().unwrap(), port)).unwrap();
    fs::write(&script, SCRIPT).unwrap();
    // It is an ordinary user who runs it.
    for path in [path, &script] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (name, _) = APACHE;
    let mut workload = Workload::start_in(name, path)?;
    wait_for("Apache to answer", || ask(port).ok());
    let over = AtomicBool::new(false);
    let ask_on = || {
        while !over.load(Ordering::Relaxed) {
            std::thread::sleep(BETWEEN_REQUESTS);
            ask(port).unwrap_or_else(|error| panic!("Apache does not answer: {error}"));
        }
    };
    Ok(std::thread::scope(|scope| {
        let mut clients = Vec::new();
        paced::watch(&mut workload, name, |workload, moment| match moment {
            Moment::Begin => clients.extend([(); CLIENTS].map(|()| scope.spawn(ask_on))),
            Moment::Turn => assert!(clients.iter().all(|client| !client.is_finished()), "Apache does not answer"),
            Moment::End => {
                over.store(true, Ordering::Relaxed);
                clients.drain(..).for_each(|client| client.join().unwrap());
                replace_workers(workload);
            }
        })
    }))
}

/// Has Apache replace its workers and waits for that: each of them hides some ms of what it has reaped, less than a tick, which
/// then shows at Apache itself.
fn replace_workers(workload: &Workload) {
    let processes = || fs::read_to_string(workload.cgroup.directory().join("cgroup.procs")).unwrap();
    let before = processes();
    let root = workload.root.to_string();
    kill(workload.root.cast_signed(), Signal::USR1);
    wait_for("Apache to replace its workers", || {
        let now = processes();
        let old = now.lines().filter(|pid| *pid != root && before.lines().any(|known| known == *pid));
        (old.count() == 0).then_some(())
    });
}

/// A worker is replaced after twenty requests.
fn configuration(directory: &Path, modules: &Path, port: u16) -> String {
    let (directory, modules) = (directory.display(), modules.display());
    format!(
        "ServerName localhost
        Listen 127.0.0.1:{port}
        User #{ORDINARY_USER}
        Group #{ORDINARY_USER}
        DefaultRuntimeDir {directory}
        PidFile {directory}/pid
        ErrorLog {directory}/error.log
        LoadModule mpm_prefork_module {modules}/mod_mpm_prefork.so
        LoadModule authz_core_module {modules}/mod_authz_core.so
        LoadModule cgi_module {modules}/mod_cgi.so
        StartServers 4
        MinSpareServers 4
        MaxSpareServers 8
        MaxRequestWorkers 8
        MaxConnectionsPerChild 20
        DocumentRoot {directory}
        <Location />
            SetHandler cgi-script
            Options ExecCGI
            Require all granted
        </Location>
        "
    )
}

/// One request.
fn ask(port: u16) -> Result<(), Error> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(b"GET /script HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.ends_with("\r\n\r\n1\n") { Ok(()) } else { Err(Error::other(answer)) }
}
