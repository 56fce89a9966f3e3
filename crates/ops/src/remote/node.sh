# What the node runs: it takes the program from the connection into memory, runs it, and leaves nothing.
# $1 is the word that begins our lines; the arguments of the program follow. It has no single quote.
word=$1
shift
own=/run/nagi-$word
umask 077
# A shell says when what it started was killed; with nobody to tell, it must go on and tidy up.
trap "" PIPE
say() { printf "%s %s\n" "$word" "$*"; }
fail() { say "failed $*"; exit 1; }
is_mounted=
program=
leave() {
    [ -z "$program" ] || kill "$program" 2>/dev/null
    if [ -n "$is_mounted" ]; then umount "$own" || umount -l "$own"; fi 2>/dev/null
    rmdir "$own" 2>/dev/null
}
command -v timeout >/dev/null || fail "there is no timeout there"
# What a call left whose shell was killed; a call that lives touches its own, and names of others have no 32 digits.
digits="[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]"
find /run -maxdepth 1 -type d -name "nagi-$digits$digits$digits$digits" -mmin +60 -exec rmdir {} \; 2>/dev/null
why=$(mkdir "$own" 2>&1) || fail "$why"
trap leave EXIT
trap "exit 143" HUP INT TERM
# The directory itself, which the mount hides.
exec 4<"$own"
why=$(mount -t tmpfs -o mode=0700,nosuid,nodev tmpfs "$own" 2>&1) || fail "$why"
is_mounted=yes
say "ready $(uname -m)"
# A connection that falls silent here has nobody who would notice: each piece comes within a minute.
line=$(timeout 60 sh -c "read -r line && printf %s \"\$line\"") || exit 1
size=${line%% *}
sum=${line#* }
[ "$size" != no ] || exit 1
left=$size
while [ "$left" -gt 0 ]; do
    piece=1048576
    [ "$left" -ge "$piece" ] || piece=$left
    why=$(timeout 60 head -c "$piece" 2>&1 >>"$own/nagi") || fail "${why:-nothing came for a minute}"
    left=$((left - piece))
done
got=$(sha256sum <"$own/nagi")
[ "${got%% *}" = "$sum" ] || fail "it arrived damaged: $(wc -c <"$own/nagi") of $size bytes"
chmod 0700 "$own/nagi"
why=$("$own/nagi" version 2>&1 >/dev/null </dev/null) || fail "it does not run there: $why"
exec 3<&0
say started
"$own/nagi" "$@" </dev/null 3<&- 4<&- &
program=$!
# The connection ends, or nothing comes from the other end, which says something every 5 s: so does what it started.
(while [ -n "$(timeout 20 head -c 1 <&3)" ]; do touch /proc/self/fd/4; done; kill "$program") >/dev/null 2>&1 &
watch=$!
wait "$program"
code=$?
program=
kill "$watch" 2>/dev/null
exit "$code"
