package host

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Port is an address that a component will listen on.
type Port struct {
	Network string // "tcp" or "udp"
	Address netip.AddrPort
	For     string // who wants it
}

// CheckPorts reports every port that cannot be had and the process that has it,
// one line each.
func CheckPorts(wanted []Port) error {
	var taken error
	for _, network := range []string{"tcp", "udp"} {
		var sockets []socket
		for _, family := range []string{"", "6"} {
			data, err := os.ReadFile("/proc/net/" + network + family)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("list open ports: %w", err)
			}
			sockets = append(sockets, parseSockets(string(data), network)...)
		}
		for _, p := range wanted {
			if p.Network != network {
				continue
			}
			if s, ok := conflict(p.Address, sockets); ok {
				taken = errors.Join(taken, fmt.Errorf("%s port %s, which %s needs, is taken by %s: stop that first",
					network, p.Address, p.For, owner("/proc", s.inode)))
			}
		}
	}
	return taken
}

type socket struct {
	local netip.AddrPort
	inode string
}

// parseSockets reads /proc/net/tcp or udp and keeps the sockets that listen.
func parseSockets(table, network string) []socket {
	const listening, localField, stateField, inodeField = "0A", 1, 3, 9
	var sockets []socket
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) <= inodeField || (network == "tcp" && fields[stateField] != listening) {
			continue
		}
		if local, ok := parseHexAddr(fields[localField]); ok {
			sockets = append(sockets, socket{local: local, inode: fields[inodeField]})
		}
	}
	return sockets
}

// parseHexAddr reads the kernel's form: 32-bit words in the machine's own byte
// order (little-endian on every architecture the lab supports).
func parseHexAddr(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	if !ok || err != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.LittleEndian.Uint32(raw[i:]))
	}
	addr, ok := netip.AddrFromSlice(raw)
	number, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(number)), true
}

func conflict(want netip.AddrPort, sockets []socket) (socket, bool) {
	for _, s := range sockets {
		if s.local.Port() != want.Port() {
			continue
		}
		if s.local.Addr() == want.Addr() || s.local.Addr().IsUnspecified() || want.Addr().IsUnspecified() {
			return s, true
		}
	}
	return socket{}, false
}

// owner names the process that holds a socket.
func owner(proc, inode string) string {
	link := "socket:[" + inode + "]"
	fds, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "fd", "*"))
	if err != nil {
		return "an unknown process"
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err != nil || to != link {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		name, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			return "process " + filepath.Base(dir)
		}
		return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), filepath.Base(dir))
	}
	return "a process that cannot be seen from here"
}
