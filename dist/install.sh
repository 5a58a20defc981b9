#!/bin/sh
# Installs telegraf-taskstats from the directory of this script, or takes it away again, as root:
#   ./install.sh [install | uninstall]
# PREFIX says where to (/usr/local). With DESTDIR it only places the files, or removes them, below that directory.
# An existing plugin.conf is kept, also by uninstall.
set -eu
# The user telegraf is to read what is placed.
umask 022
PREFIX=${PREFIX:-/usr/local}
DESTDIR=${DESTDIR:-}
# It is written into units and configuration.
case $PREFIX in
  *[!A-Za-z0-9/._+-]* | [!/]*) echo "PREFIX $PREFIX: an absolute path of letters, digits and /._+- is wanted" >&2; exit 2 ;;
esac
[ -z "$DESTDIR" ] || DESTDIR=$(mkdir -p "$DESTDIR" && cd "$DESTDIR" && pwd)
cd "$(dirname "$0")"
name=telegraf-taskstats
configuration=$DESTDIR/etc/$name/plugin.conf
bin=$PREFIX/bin
share=$PREFIX/share/$name
units=$PREFIX/lib/systemd/system
man=$PREFIX/share/man/man1
bash=$PREFIX/share/bash-completion/completions
zsh=$PREFIX/share/zsh/site-functions
fish=$PREFIX/share/fish/vendor_completions.d
documents=$PREFIX/share/doc/$name

# place DIRECTORY FILE...: what names paths of the packages is given those of this installation.
place() {
  to=$DESTDIR$1
  shift
  mkdir -p "$to"
  for file; do
    [ -f "$file" ] || continue
    case $file in
      *.conf | *.service | *.socket)
        sed "s|/usr/bin/$name|$bin/$name|g; s|/usr/share/$name|$share|g" "$file" >"$to/${file##*/}"
        chmod 0644 "$to/${file##*/}"
        ;;
      *) install -m 0644 "$file" "$to/" ;;
    esac
  done
}

install_files() {
  mkdir -p "$DESTDIR$bin" "${configuration%/*}"
  install -m 0750 $name "$DESTDIR$bin/"
  [ -e "$configuration" ] || install -m 0644 plugin.conf.example "$configuration"
  place "$share" setup.sh
  for directory in telegraf.d sysctl.d grafana alerts; do
    place "$share/$directory" $directory/*
  done
  for file in systemd/*; do
    case $file in
      *.service | *.socket) place "$units" "$file" ;;
      *) place "$share" "$file" ;;
    esac
  done
  place "$man" $name.1.gz
  place "$bash" completions/$name
  place "$zsh" completions/_$name
  place "$fish" completions/$name.fish
  place "$documents" README.md ARCHITECTURE.md CONTRIBUTING.md CHANGELOG.md LICENSE plugin.conf.example
  place "$documents/docs" docs/*
  place "$documents/docs/images" docs/images/*
}

uninstall_files() {
  rm -rf "$DESTDIR$share" "$DESTDIR$documents"
  rm -f "$DESTDIR$bin/$name" "$DESTDIR$units/$name".service "$DESTDIR$units/$name"-writer.* "$DESTDIR$man/$name.1.gz" "$DESTDIR$bash/$name" \
    "$DESTDIR$zsh/_$name" "$DESTDIR$fish/$name.fish"
  [ "$DESTDIR" ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload || true
  [ ! -e "$configuration" ] || echo "$configuration is kept."
}

case ${1:-install} in
  install)
    install_files
    [ "$DESTDIR" ] || sh "$share/setup.sh" enter "$bin/$name"
    ;;
  uninstall)
    [ "$DESTDIR" ] || [ ! -e "$share/setup.sh" ] || sh "$share/setup.sh" leave
    uninstall_files
    ;;
  *)
    echo "usage: $0 [install | uninstall]" >&2
    exit 2
    ;;
esac
