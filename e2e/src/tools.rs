//! The programs that a cluster is made of, built from pinned Go modules.
//!
//! Each tool has a Go module of its own under `e2e/control-plane/`: its `go.mod` names the packages (lines `tool`) and, with
//! `go.sum`, the exact content of everything that goes in. What was built is kept outside the clone by the hash of those files
//! and of the way it is built, so a build runs once for as long as neither changes, and every clone shares it.
//!
//! A build goes into a directory beside the final one and is renamed at its end: one that was killed leaves nothing that
//! looks whole. A lock lets a second process wait for the first instead of building the same.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use crate::cache;
use crate::call::Call;
use crate::files;
use crate::go;
use crate::lock::Lock;
use crate::remove::remove_directory;
use crate::wait;

/// On two cores that others use too, Kubernetes takes about ten minutes.
const LIMIT: Duration = Duration::from_hours(1);

/// Go says nothing while it builds.
const SAY_EVERY: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How much of a hash tells builds apart in the name of a directory.
const HASH_LETTERS: usize = 16;

/// How a tool is built.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// Its directory under `e2e/control-plane/`.
    pub name: &'static str,
    /// The module whose version is the tool's.
    module: &'static str,
    /// The packages to build and the programs that they become.
    programs: &'static [Program],
    /// Go variables that tell the program its version; `VERSION`, `MAJOR` and `MINOR` stand for the module's.
    variables: &'static [&'static str],
    /// Files of the module that are kept beside the programs.
    files: &'static [KeptFiles],
    /// How long a cold build takes on two cores.
    takes: &'static str,
}

/// A package, and the name of its program.
#[derive(Debug, Clone, Copy)]
struct Program {
    package: &'static str,
    name: &'static str,
}

/// A directory of a Go module, kept under a name of its own.
#[derive(Debug, Clone, Copy)]
struct KeptFiles {
    module: &'static str,
    directory: &'static str,
    name: &'static str,
}

/// A tool that is there.
#[derive(Debug, Clone)]
pub struct Built {
    directory: PathBuf,
    version: String,
}

/// API server, controllers, scheduler, node agent, Service proxy, command line, and what lays a control-plane node out.
pub const KUBERNETES: Tool = Tool {
    name: "kubernetes",
    module: "k8s.io/kubernetes",
    programs: &[
        Program {
            package: "k8s.io/kubernetes/cmd/kube-apiserver",
            name: "kube-apiserver",
        },
        Program {
            package: "k8s.io/kubernetes/cmd/kube-controller-manager",
            name: "kube-controller-manager",
        },
        Program {
            package: "k8s.io/kubernetes/cmd/kube-scheduler",
            name: "kube-scheduler",
        },
        Program {
            package: "k8s.io/kubernetes/cmd/kubelet",
            name: "kubelet",
        },
        Program {
            package: "k8s.io/kubernetes/cmd/kube-proxy",
            name: "kube-proxy",
        },
        Program {
            package: "k8s.io/kubernetes/cmd/kubectl",
            name: "kubectl",
        },
        Program {
            package: "k8s.io/kubernetes/cmd/kubeadm",
            name: "kubeadm",
        },
    ],
    variables: &[
        "k8s.io/component-base/version.gitVersion=VERSION",
        "k8s.io/component-base/version.gitMajor=MAJOR",
        "k8s.io/component-base/version.gitMinor=MINOR",
    ],
    files: &[],
    takes: "about 5 minutes",
};

/// Where the API server keeps its objects.
pub const ETCD: Tool = Tool {
    name: "etcd",
    module: "go.etcd.io/etcd/server/v3",
    programs: &[Program {
        package: "go.etcd.io/etcd/server/v3",
        name: "etcd",
    }],
    variables: &[],
    files: &[],
    takes: "about 15 seconds",
};

/// Names of Services.
pub const COREDNS: Tool = Tool {
    name: "coredns",
    module: "github.com/coredns/coredns",
    programs: &[Program {
        package: "./server",
        name: "coredns",
    }],
    variables: &[],
    files: &[],
    takes: "about 60 seconds",
};

/// What `kubectl top` asks.
pub const METRICS_SERVER: Tool = Tool {
    name: "metrics-server",
    module: "sigs.k8s.io/metrics-server",
    programs: &[Program {
        package: "sigs.k8s.io/metrics-server/cmd/metrics-server",
        name: "metrics-server",
    }],
    variables: &["sigs.k8s.io/metrics-server/pkg/version.gitVersion=VERSION"],
    files: &[],
    takes: "about 100 seconds",
};

/// Installs charts.
pub const HELM: Tool = Tool {
    name: "helm",
    module: "helm.sh/helm/v4",
    programs: &[Program {
        package: "helm.sh/helm/v4/cmd/helm",
        name: "helm",
    }],
    variables: &["helm.sh/helm/v4/internal/version.version=VERSION"],
    files: &[],
    takes: "about 60 seconds",
};

/// Nodes and pods that exist in the API only.
pub const KWOK: Tool = Tool {
    name: "kwok",
    module: "sigs.k8s.io/kwok",
    programs: &[Program {
        package: "sigs.k8s.io/kwok/cmd/kwok",
        name: "kwok",
    }],
    variables: &["sigs.k8s.io/kwok/pkg/consts.Version=VERSION"],
    files: &[KeptFiles {
        module: "sigs.k8s.io/kwok",
        directory: "kustomize",
        name: "kustomize",
    }],
    takes: "about 45 seconds",
};

/// A node autoscaler whose nodes are kwok's.
pub const KARPENTER: Tool = Tool {
    name: "karpenter-kwok",
    module: "sigs.k8s.io/karpenter",
    programs: &[Program {
        package: "sigs.k8s.io/karpenter/kwok",
        name: "karpenter",
    }],
    variables: &[],
    files: &[
        KeptFiles {
            module: "sigs.k8s.io/karpenter",
            directory: "pkg/apis/crds",
            name: "crds",
        },
        KeptFiles {
            module: "sigs.k8s.io/karpenter",
            directory: "kwok/apis/crds",
            name: "kwok-crds",
        },
    ],
    takes: "about 60 seconds",
};

/// Small programs of our own: `pause`, which holds a pod's namespaces, the stand-ins for a GPU's device plugin and for systemd,
/// and a web server for pods of tests.
pub const STAND_INS: Tool = Tool {
    name: "stand-ins",
    module: "k8s.io/kubelet",
    programs: &[
        Program {
            package: "./pause",
            name: "pause",
        },
        Program {
            package: "./device-plugin",
            name: "device-plugin",
        },
        Program {
            package: "./services",
            name: "services",
        },
        Program {
            package: "./web",
            name: "web",
        },
    ],
    variables: &[],
    files: &[],
    takes: "about 20 seconds",
};

/// Every tool.
pub const ALL: &[Tool] = &[
    KUBERNETES,
    ETCD,
    COREDNS,
    METRICS_SERVER,
    HELM,
    KWOK,
    KARPENTER,
    STAND_INS,
];

// === impl Tool ===

impl Tool {
    /// Builds it unless it is there.
    pub fn build(&self) -> anyhow::Result<Built> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("control-plane")
            .join(self.name);
        let recipe = self.recipe(&source)?;
        let root = cache::directory()?.join("control-plane");
        let directory = root.join(format!("{}-{}", self.name, recipe.hash));
        let built = Built {
            directory: directory.clone(),
            version: recipe.version.clone(),
        };
        if directory.is_dir() {
            return Ok(built);
        }
        let what = format!("build of {} {}", self.name, recipe.version);
        let _lock = Lock::take(&root.join(format!("{}.lock", self.name)), &what, LIMIT)?;
        if directory.is_dir() {
            return Ok(built);
        }
        crate::say(&format!(
            "building {} {} ({}, once)",
            self.name, recipe.version, self.takes
        ));
        let started = wait::now();
        let unfinished = root.join(format!("{}.unfinished", self.name));
        remove_directory(&unfinished)?;
        std::fs::create_dir_all(&unfinished)
            .with_context(|| format!("create {}", unfinished.display()))?;
        saying_so(&what, || self.build_into(&source, &recipe, &unfinished))
            .with_context(|| what.clone())?;
        std::fs::rename(&unfinished, &directory)
            .with_context(|| format!("keep {}", directory.display()))?;
        crate::say(&format!(
            "built {} {} in {} s",
            self.name,
            recipe.version,
            started.elapsed().as_secs()
        ));
        Ok(built)
    }

    fn build_into(&self, source: &Path, recipe: &Recipe, target: &Path) -> anyhow::Result<()> {
        let go = go::find()?;
        Call::new("nice")
            .arguments(["-n", "10"])
            .argument(&go)
            .arguments(recipe.arguments.iter())
            .argument("-o")
            // With the slash it is a directory also where there is only one program.
            .argument(format!("{}/", target.display()))
            .arguments(self.programs.iter().map(|program| program.package))
            .environment("CGO_ENABLED", "0")
            .environment("GOTOOLCHAIN", "local")
            .environment("GOWORK", "off")
            .within(source)
            .limit(LIMIT)
            .succeed()?;
        for program in self.programs {
            let built = target.join(built_name(program.package));
            let named = target.join(program.name);
            if built != named {
                std::fs::rename(&built, &named)
                    .with_context(|| format!("name {}", named.display()))?;
            }
        }
        for files in self.files {
            let module = Call::new(&go)
                .arguments(["list", "-m", "-f", "{{.Dir}}", files.module])
                .environment("GOTOOLCHAIN", "local")
                .environment("GOWORK", "off")
                .within(source)
                .output()?;
            let from = Path::new(module.trim()).join(files.directory);
            copy_directory(&from, &target.join(files.name))?;
        }
        Ok(())
    }

    fn recipe(&self, source: &Path) -> anyhow::Result<Recipe> {
        let files = files_below(source)?;
        let manifest = std::fs::read_to_string(source.join("go.mod"))
            .with_context(|| format!("read go.mod of {}", self.name))?;
        let version = version_of(&manifest, self.module)
            .with_context(|| format!("go.mod of {} requires no {}", self.name, self.module))?;
        let arguments = [
            "build".to_owned(),
            "-mod=readonly".to_owned(),
            "-buildvcs=false".to_owned(),
            "-trimpath".to_owned(),
            format!("-ldflags={}", self.linker_flags(version)),
        ];
        let mut hasher = Sha256::new();
        for file in &files {
            let content = std::fs::read(source.join(file))
                .with_context(|| format!("read {} of {}", file.display(), self.name))?;
            part(&mut hasher, file.as_os_str().as_encoded_bytes());
            part(&mut hasher, &content);
        }
        for argument in &arguments {
            part(&mut hasher, argument.as_bytes());
        }
        part(
            &mut hasher,
            format!("{:?} {:?}", self.programs, self.files).as_bytes(),
        );
        part(&mut hasher, std::env::consts::ARCH.as_bytes());
        let mut hash = String::new();
        for byte in hasher.finalize() {
            write!(hash, "{byte:02x}")?;
        }
        hash.truncate(HASH_LETTERS);
        Ok(Recipe {
            version: version.to_owned(),
            arguments: arguments.to_vec(),
            hash,
        })
    }

    /// Without symbol tables: half the size.
    fn linker_flags(&self, version: &str) -> String {
        let mut numbers = version.trim_start_matches('v').split('.');
        let (major, minor) = (
            numbers.next().unwrap_or_default(),
            numbers.next().unwrap_or_default(),
        );
        self.variables
            .iter()
            .fold("-s -w".to_owned(), |flags, variable| {
                let variable = variable
                    .replace("VERSION", version)
                    .replace("MAJOR", major)
                    .replace("MINOR", minor);
                format!("{flags} -X {variable}")
            })
    }
}

/// What a build depends on.
#[derive(Debug)]
struct Recipe {
    version: String,
    arguments: Vec<String>,
    hash: String,
}

// === impl Built ===

impl Built {
    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The directory of files that were kept with it.
    pub(crate) fn files(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Its version, as its module says it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where all its programs are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Does something that takes minutes, and says now and then that it is still being done.
fn saying_so<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let started = wait::now();
            let mut said = Duration::ZERO;
            while !is_done.load(Ordering::Relaxed) {
                wait::pause(LOOK_EVERY);
                let passed = started.elapsed();
                if passed >= said + SAY_EVERY {
                    said = passed;
                    crate::say(&format!("{what}: {} s so far", passed.as_secs()));
                }
            }
        });
        // Also after a panic: the other thread would never end.
        let _guard = SetOnDrop(&is_done);
        work()
    })
}

/// Sets a flag when it is dropped.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Length first, so that two files never read like one.
fn part(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update(bytes.len().to_le_bytes());
    hasher.update(bytes);
}

/// The name that go gives a program: the last part of its package that is not a major version.
fn built_name(package: &str) -> &str {
    package
        .rsplit('/')
        .find(|part| {
            part.strip_prefix('v').is_none_or(|rest| {
                rest.is_empty() || !rest.bytes().all(|byte| byte.is_ascii_digit())
            })
        })
        .unwrap_or(package)
}

fn version_of<'a>(manifest: &'a str, module: &str) -> Option<&'a str> {
    manifest.lines().find_map(|line| {
        let line = line.trim();
        let line = line.strip_prefix("require ").unwrap_or(line);
        let version = line.strip_prefix(module)?.strip_prefix(' ')?;
        version
            .split_whitespace()
            .next()
            .filter(|version| version.starts_with('v'))
    })
}

fn files_below(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut queue = vec![PathBuf::new()];
    while let Some(below) = queue.pop() {
        for path in files::entries(&directory.join(&below))? {
            let name = below.join(path.file_name().context("an entry has a name")?);
            if path.is_dir() {
                queue.push(name);
            } else {
                found.push(name);
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn copy_directory(from: &Path, to: &Path) -> anyhow::Result<()> {
    for file in files_below(from)? {
        let target = to.join(&file);
        let parent = target.parent().context("a file lies in a directory")?;
        std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        let text = std::fs::read(from.join(&file))
            .with_context(|| format!("read {}", from.join(&file).display()))?;
        // Not a copy: the files of the module cache are read-only.
        std::fs::write(&target, text).with_context(|| format!("write {}", target.display()))?;
    }
    Ok(())
}

/// Fails when the person asked for a tool that there is not.
pub(crate) fn named(name: &str) -> anyhow::Result<&'static Tool> {
    let Some(tool) = ALL.iter().find(|tool| tool.name == name) else {
        let names: Vec<&str> = ALL.iter().map(|tool| tool.name).collect();
        bail!(
            "there is no tool '{name}'\nhint: there are {}",
            names.join(", ")
        );
    };
    Ok(tool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_names_a_program_for_the_last_part_that_is_no_version() {
        assert_eq!(built_name("go.etcd.io/etcd/server/v3"), "server");
        assert_eq!(built_name("k8s.io/kubernetes/cmd/kubectl"), "kubectl");
        assert_eq!(built_name("./pause"), "pause");
        assert_eq!(built_name("a/v"), "v");
    }

    #[test]
    fn version_is_the_one_that_the_manifest_requires() {
        let manifest = "module m\ntool k8s.io/kubernetes/cmd/kubectl\nrequire k8s.io/kubernetes v1.2.3\n\
            require (\n\tk8s.io/kubernetes-more v9.9.9\n\tk8s.io/api v0.2.3 // indirect\n)\n\
            replace k8s.io/api => k8s.io/api v0.4.5\n";
        assert_eq!(version_of(manifest, "k8s.io/kubernetes"), Some("v1.2.3"));
        assert_eq!(version_of(manifest, "k8s.io/api"), Some("v0.2.3"));
        assert_eq!(version_of(manifest, "k8s.io/kube"), None);
    }

    #[test]
    fn every_tool_has_its_module_and_a_hash_that_its_files_change() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("control-plane");
        for tool in ALL {
            let source = root.join(tool.name);
            let recipe = tool.recipe(&source).expect("the module is there");
            let scratch = tempfile::tempdir().expect("a scratch directory");
            copy_directory(&source, scratch.path()).expect("copy it");
            let copied = tool.recipe(scratch.path()).expect("the copy is whole");
            assert_eq!(copied.hash, recipe.hash, "{}", tool.name);
            std::fs::write(scratch.path().join("more.go"), "package more\n").expect("write");
            let changed = tool.recipe(scratch.path()).expect("still a module");
            assert_ne!(changed.hash, recipe.hash, "{}", tool.name);
        }
    }
}
