//go:build root

package hosts

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ports: what the README says must be open is, and nothing else, of all 65,535 ports, from everywhere to everywhere. Whoever tries is not bound by a firewall of its own; the others are as
// they always are. Nor does a daemon listen behind a firewall where nobody would find it.
func (w *town) ports(t *testing.T) {
	open := map[string][]int{}
	for _, line := range []string{
		"storefront " + vaultToStorefront + " " + vaultPort,
		"people " + vaultToPeople + " " + ownersPort,
		"people " + storefrontToPeople + " " + storefrontPort,
	} {
		from, port, _ := cutLast(line)
		n, err := strconv.Atoi(port)
		must(t, err)
		open[from] = append(open[from], n)
	}
	own := map[*machine][]string{
		wires.vault:      {vaultToStorefront, vaultToPeople},
		wires.storefront: {storefrontToVault, storefrontToPeople},
		wires.people:     {peopleToVault, peopleToStorefront},
	}
	for from := range own { // one after the other: the one that tries is without its firewall
		must(t, from.unguard())
		var all sync.WaitGroup
		for other, addresses := range own {
			if other == from {
				continue
			}
			for _, address := range addresses {
				all.Go(func() {
					name := from.name + " " + address
					found, err := from.sweep(address, open[name])
					if err != nil || !slices.Equal(found, open[name]) {
						t.Errorf("from %s, ports %v are open: %v; the table says %v", name, found, err, open[name])
					}
				})
			}
		}
		all.Wait()
		must(t, from.guard())
	}
	for m, want := range map[*machine][]string{
		wires.vault:      {vaultToStorefront + ":" + vaultPort, vaultToPeople + ":" + ownersPort},
		wires.storefront: {storefrontToPeople + ":" + storefrontPort},
		wires.people:     nil,
	} {
		listens, err := m.listeners()
		must(t, err)
		if slices.Sort(want); !slices.Equal(listens, want) {
			t.Errorf("on the machine of the %s there are listeners at %q; the table says %q", m.name, listens, want)
		}
	}
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, ' ')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// unguard takes the machine's firewall away, until guard.
func (m *machine) unguard() error { return m.run("", "nft", "delete", "table", "inet", "guard") }

const (
	sweepAtOnce = 8000                   // sockets of one sweep, if the process may have as many
	sweepWait   = 100 * time.Millisecond // for answers; between two namespaces of one kernel they are there before connect returns
	sweepBound  = 10 * time.Second       // for the answers of ports that are open
)

// sweep tries to connect to every TCP port of an address, many at a time, and returns those that are open, ascending. A firewall that drops answers nothing, so nothing is waited for but
// the ports that are known to be open.
func (m *machine) sweep(address string, known []int) (open []int, err error) {
	to := [4]byte(net.ParseIP(address).To4())
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	atOnce := int(min(sweepAtOnce, max(100, limit.Cur/3))) // two sweeps go on at a time, and the rest of the process has files too
	err = m.do(func() error {
		for first := 1; first <= 65535; first += atOnce {
			found, err := sweepSome(to, first, min(first+atOnce, 65536), known)
			if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) { // there is no way to the address, whatever the port
				return nil
			}
			if err != nil {
				return err
			}
			open = append(open, found...)
		}
		return nil
	})
	slices.Sort(open)
	return open, err
}

// sweepSome tries the ports from first to end, without it.
func sweepSome(to [4]byte, first, end int, known []int) (open []int, err error) {
	pending := map[int32]int{} // file descriptor to port
	defer func() {
		for fd := range pending {
			_ = unix.Close(int(fd)) // nothing was said on it
		}
	}()
	awaited := 0
	for port := first; port < end; port++ {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		pending[int32(fd)] = port
		// An error is also a refusal: the firewall let the question through.
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: to}); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return nil, fmt.Errorf("port %d: %w", port, err)
		}
		if slices.Contains(known, port) {
			awaited++
		}
	}
	fds := make([]unix.PollFd, 0, len(pending))
	for _, fd := range slices.Sorted(maps.Keys(pending)) {
		fds = append(fds, unix.PollFd{Fd: fd, Events: unix.POLLOUT})
	}
	for begin := time.Now(); len(fds) > 0; {
		n, err := unix.Poll(fds, int(sweepWait.Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
		for i := len(fds) - 1; i >= 0 && n > 0; i-- {
			if fds[i].Revents == 0 {
				continue
			}
			port := pending[fds[i].Fd]
			if e, err := unix.GetsockoptInt(int(fds[i].Fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil || e != 0 {
				return nil, fmt.Errorf("port %d: %w", port, errors.Join(err, unix.Errno(e)))
			}
			open, fds = append(open, port), slices.Delete(fds, i, i+1)
			if slices.Contains(known, port) {
				awaited--
			}
		}
		if n == 0 && (awaited == 0 || time.Since(begin) > sweepBound) {
			break
		}
	}
	return open, nil
}

// listeners are the addresses at which something on the machine waits for TCP connections or UDP packets, ascending.
func (m *machine) listeners() (found []string, err error) {
	const listening, unconnected = "0A", "07"
	err = m.do(func() error {
		for table, state := range map[string]string{"tcp": listening, "tcp6": listening, "udp": unconnected, "udp6": unconnected} {
			text, err := os.ReadFile("/proc/thread-self/net/" + table)
			if errors.Is(err, os.ErrNotExist) && strings.HasSuffix(table, "6") {
				continue // a kernel without IPv6
			}
			if err != nil {
				return err
			}
			for _, line := range strings.Split(string(text), "\n")[1:] {
				fields := strings.Fields(line)
				if len(fields) < 4 || fields[3] != state {
					continue
				}
				host, port, _ := strings.Cut(fields[1], ":")
				n, err := strconv.ParseUint(port, 16, 16)
				if err != nil {
					return err
				}
				at := table + " " + host + ":" + port
				if ip, err := strconv.ParseUint(host, 16, 32); err == nil && table == "tcp" { // in the machine's own order, as all that this runs on have it
					at = fmt.Sprintf("%d.%d.%d.%d:%d", byte(ip), byte(ip>>8), byte(ip>>16), byte(ip>>24), n)
				}
				found = append(found, at)
			}
		}
		return nil
	})
	slices.Sort(found)
	return found, err
}
