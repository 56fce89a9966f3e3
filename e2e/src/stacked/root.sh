set -eu
disk=$1 root=$2 name=$3
shift 3
mount -o loop "$disk" "$root"
cd "$root"
mkdir -p dev etc home opt/bin proc root run srv sys tmp usr
mkdir -p var/cache/apt/archives/partial var/crash var/lib/systemd/coredump var/log/journal var/tmp
chmod 1777 tmp var/tmp
hostname "$name"

# Programs of the machine.
mount --bind -o ro /usr usr
for each in bin sbin lib lib32 lib64 libx32; do
    if [ -L "/$each" ]; then
        ln -sfnT "$(readlink "/$each")" "$each"
    elif [ -d "/$each" ]; then
        mkdir -p "$each"
        mount --bind -o ro "/$each" "$each"
    fi
done
for each in alternatives apt group ld.so.cache ld.so.conf ld.so.conf.d localtime nsswitch.conf os-release passwd protocols services; do
    if [ -e "/etc/$each" ]; then cp --archive "/etc/$each" etc/; fi
done
echo "$name" >etc/hostname
printf '127.0.0.1 localhost %s\n' "$name" >etc/hosts

# What only lives while it runs.
mount -t proc proc proc
mount --rbind /sys sys
mount -t tmpfs -o mode=755 run run
mkdir -p run/lock run/systemd/journal
# Journald writes to the disk from the beginning.
touch run/systemd/journal/flushed
mount -t tmpfs -o mode=755 dev dev
cp --archive /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/kmsg dev/
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd

while [ "$#" -gt 0 ]; do
    if [ ! -e "./$2" ]; then : >"./$2"; fi
    mount --bind -o ro "$1" "./$2"
    shift 2
done

mkdir -p .machine
pivot_root . .machine
cd /
umount --lazy /.machine
rmdir /.machine
mount --make-rshared /
export PATH="$SEARCH_PATH" HOME=/root
exec services /etc/services.json
