# What the user of the connection runs: it becomes root, in mounts of its own that go with it.
# $1 is the script of the node, $2 the word that begins our lines; the arguments of the program follow. It has no single quote.
script=$1
word=$2
shift
if [ "$(id -u)" = 0 ]; then
    exec unshare --mount --propagation slave sh -c "$script" nagi "$@"
fi
command -v sudo >/dev/null || { printf "%s failed-root there is no sudo\n" "$word"; exit 1; }
why=$(sudo -n true 2>&1) || { printf "%s failed-root %s\n" "$word" "$why"; exit 1; }
exec sudo -n unshare --mount --propagation slave sh -c "$script" nagi "$@"
