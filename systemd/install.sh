#!/bin/sh
# Installs or upgrades vochid from this clone: the program in /opt/vochid, user vochid, the systemd unit. Run as root.
# DESTDIR=/some/root installs below another root and starts nothing.
set -eu
source=$(cd "$(dirname "$0")/.." && pwd)
root=${DESTDIR:-}
if [ "$(id -u)" != 0 ]; then
    echo "install: this needs root: sudo sh systemd/install.sh" >&2
    exit 1
fi

echo "install: the program, into $root/opt/vochid"
mkdir -p "$root/opt/vochid" "$root/etc/systemd/system" "$root/etc/vochid" "$root/usr/lib/sysusers.d" "$root/usr/lib/tmpfiles.d"
for part in daemon adapters admin_http lab sql asterisk-conf systemd tools pyproject.toml requirements.lock README.md README.ru.md LICENSE; do
    rm -rf "$root/opt/vochid/$part"
    cp -R "$source/$part" "$root/opt/vochid/$part"
done
python3 "$root/opt/vochid/tools/setup.py"
"$root/opt/vochid/.venv/bin/python" "$root/opt/vochid/tools/compile.py"

echo "install: user, settings, unit"
cp "$source/systemd/vochid.sysusers" "$root/usr/lib/sysusers.d/vochid.conf"
cp "$source/systemd/vochid.tmpfiles" "$root/usr/lib/tmpfiles.d/vochid.conf"
cp "$source/systemd/vochid.service" "$root/etc/systemd/system/vochid.service"
[ -e "$root/etc/vochid/vochid.toml" ] || cp "$source/systemd/vochid.toml" "$root/etc/vochid/vochid.toml"
[ -z "$root" ] || exit 0
systemd-sysusers
systemd-tmpfiles --create vochid.conf
ln -sf /opt/vochid/.venv/bin/vochid /usr/local/bin/vochid
systemctl daemon-reload
systemctl enable vochid
systemctl restart vochid
echo "install: running; sudo -u vochid VOCHID_DATA_DIR=/var/lib/vochid vochid doctor"
