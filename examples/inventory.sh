#!/bin/sh
# What is this machine? Kernel, distribution, uptime, disks, memory, the largest processes, listening
# sockets, pending package updates. Plain POSIX sh; asks nothing of the network, changes nothing,
# needs no privileges, and leaves out what a machine cannot answer.
#
#   fleetwire run --on 'os=linux' --script examples/inventory.sh

LC_ALL=C
export LC_ALL
PATH=$PATH:/usr/sbin:/sbin

have() { command -v "$1" >/dev/null 2>&1; }
title() { printf '\n== %s\n' "$1"; }
fact() { printf '%-14s %s\n' "$1" "$2"; }
# Some package tools may wait for a lock; none may hold up the inventory.
briefly() { if have timeout; then timeout 20 "$@"; else "$@"; fi; }

machine() {
    title machine
    fact host "$(uname -n)"
    fact kernel "$(uname -srm)"
    if [ -r /etc/os-release ]; then
        # In a subshell: the file sets many variables.
        fact distribution "$(. /etc/os-release && printf '%s' "${PRETTY_NAME:-$ID}")"
    fi
    fact processors "$(getconf _NPROCESSORS_ONLN 2>/dev/null || grep -c '^processor' /proc/cpuinfo)"
    if [ -r /proc/uptime ]; then
        fact uptime "$(awk '{ s = int($1); printf "%dd %dh %dm", s / 86400, s % 86400 / 3600, s % 3600 / 60 }' /proc/uptime)"
    fi
    [ -r /proc/loadavg ] && fact load "$(cut -d ' ' -f 1-3 /proc/loadavg)"
    fact user "$(id -un 2>/dev/null || id -u)"
    fact time "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
}

memory() {
    title memory
    [ -r /proc/meminfo ] || return 0
    awk '
        { kib[$1] = $2 }
        END {
            printf "%-14s %8.0f MiB\n", "total", kib["MemTotal:"] / 1024
            printf "%-14s %8.0f MiB\n", "available", kib["MemAvailable:"] / 1024
            printf "%-14s %8.0f MiB\n", "swap total", kib["SwapTotal:"] / 1024
            printf "%-14s %8.0f MiB\n", "swap free", kib["SwapFree:"] / 1024
        }' /proc/meminfo
}

disks() {
    title disks
    # Real devices; of several mounts of the same device only the first.
    df -P -k 2>/dev/null | awk '
        NR == 1 { printf "%-24s %10s %10s %5s  %s\n", "device", "size GiB", "free GiB", "used", "mounted on"; next }
        ($1 ~ /^\// || $1 == "overlay") && !seen[$1]++ {
            mount = $6; for (i = 7; i <= NF; i++) mount = mount " " $i
            printf "%-24s %10.1f %10.1f %5s  %s\n", $1, $2 / 1048576, $4 / 1048576, $5, mount
        }'
}

processes() {
    title "largest processes"
    printf '%8s %10s  %s\n' pid 'mem MiB' program
    # /proc is there where ps is not (small containers); a process may end while it is read.
    for status in /proc/[0-9]*/status; do
        awk '
            $1 == "Name:" { sub(/^Name:[ \t]*/, ""); name = $0 }
            $1 == "Pid:" { pid = $2 }
            $1 == "VmRSS:" { rss = $2 }
            END { if (rss) printf "%8d %10.1f  %s\n", pid, rss / 1024, name }' "$status" 2>/dev/null
    done | sort -k 2,2nr | head -n 8
}

# Reads /proc/net/tcp and its like: hexadecimal, and each 32-bit word of an address byte-swapped.
sockets_from_proc() {
    for table in tcp tcp6 udp udp6; do
        [ -r "/proc/net/$table" ] || continue
        awk -v proto="$table" '
            function number(hex,    i, n) {
                n = 0
                for (i = 1; i <= length(hex); i++)
                    n = n * 16 + index("0123456789ABCDEF", substr(hex, i, 1)) - 1
                return n
            }
            # 0A: a TCP socket that listens; 07: a UDP socket without a peer
            (proto ~ /^tcp/ && $4 == "0A") || (proto ~ /^udp/ && $4 == "07") {
                split($2, at, ":")
                if (length(at[1]) == 8)
                    address = number(substr(at[1], 7, 2)) "." number(substr(at[1], 5, 2)) "." \
                              number(substr(at[1], 3, 2)) "." number(substr(at[1], 1, 2))
                else if (at[1] ~ /^0+$/) address = "[::]"
                else if (at[1] == "00000000000000000000000001000000") address = "[::1]"
                else address = "[" tolower(at[1]) "]"
                printf "%-5s %s:%d\n", substr(proto, 1, 3), address, number(at[2])
            }' "/proc/net/$table"
    done
}

sockets() {
    title "listening sockets"
    {
        if have ss; then
            ss -H -l -n -t -u 2>/dev/null | awk '{ printf "%-5s %s\n", $1, $5 }'
        else
            sockets_from_proc
        fi
    } | sort -u | awk 'NR <= 40 { print } END { if (NR > 40) printf "... and %d more\n", NR - 40; if (!NR) print "none" }'
}

updates() {
    title "pending package updates"
    # Only from what the machine already knows: none of these asks the network.
    if have apt-get; then
        briefly apt-get --simulate --quiet --no-download -o Debug::NoLocking=true dist-upgrade 2>/dev/null |
            awk '/^Inst [^ ]+ \[/ { gsub(/[][()]/, ""); n++; if (n <= 10) printf "%-32s %s -> %s\n", $2, $3, $4 }
                 END { if (n > 10) printf "... and %d more\n", n - 10; printf "%d pending (apt)\n", n }'
    elif have dnf; then
        briefly dnf --quiet --cacheonly check-update 2>/dev/null |
            awk 'NF == 3 { n++; if (n <= 10) printf "%-32s %s\n", $1, $2 }
                 END { if (n > 10) printf "... and %d more\n", n - 10; printf "%d pending (dnf)\n", n }'
    elif have apk; then
        briefly apk version --no-network -l '<' 2>/dev/null |
            awk 'NR > 1 { n++; if (n <= 10) print }
                 END { if (n > 10) printf "... and %d more\n", n - 10; printf "%d pending (apk)\n", n }'
    else
        echo "no package tool that this script knows (apt, dnf, apk)"
    fi
}

machine
memory
disks
processes
sockets
updates
# What could not be found out was left out above: a healthy machine is a success.
exit 0
