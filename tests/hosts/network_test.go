//go:build root

package hosts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Addresses: a machine has another one on each of its links, and a door listens on the link that it is for.
const (
	vaultToStorefront  = "10.91.1.1"
	storefrontToVault  = "10.91.1.2"
	vaultToPeople      = "10.91.2.1"
	peopleToVault      = "10.91.2.2"
	storefrontToPeople = "10.91.3.1"
	peopleToStorefront = "10.91.3.2"

	storefrontPort = "8443" // for owners and readers
	vaultPort      = "8444" // the storefront's door
	ownersPort     = "8445" // the owners' door
)

// machine is a network namespace.
type machine struct {
	name string
	path string // of the namespace, as long as this process lives
	// pass is what its firewall lets through, and nothing else: a port here of a peer there, or a port there.
	pass  []passage
	lost  []string // links on which every packet vanishes
	stale []string // ports of its own whose connections' packets vanish
}

// passage is one line of the READMEs' table of ports, seen from one side.
type passage struct {
	serves bool   // the port is on this side
	peer   string // address
	port   string
}

// network is the three machines. People is the one that this process itself is in.
type network struct {
	vault, storefront, people *machine
}

// enter is what puts a command onto a machine. nsenter becomes the command, so that signals reach it.
func (m *machine) enter() []string { return []string{"nsenter", "--net=" + m.path, "--"} }

// run runs a command on a machine.
func (m *machine) run(stdin string, args ...string) error {
	all := append(m.enter(), args...)
	cmd := exec.Command(all[0], all[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %s: %w\n%s", m.name, strings.Join(args, " "), err, out)
	}
	return nil
}

// do calls f on a thread that is on the machine for as long. The thread goes on afterwards: the daemons that it may have started end with it.
func (m *machine) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			there, err := os.Open(m.path)
			if err != nil {
				return err
			}
			defer there.Close()
			back, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				return err
			}
			defer back.Close()
			if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			err = f()
			if backErr := unix.Setns(int(back.Fd()), unix.CLONE_NEWNET); backErr != nil {
				return errors.Join(err, backErr)
			}
			runtime.UnlockOSThread()
			return err
		}()
	}()
	return <-done
}

// newMachine makes a namespace.
func newMachine(name string) (*machine, error) {
	m := &machine{name: name}
	made := make(chan error)
	go func() {
		runtime.LockOSThread()
		made <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			m.path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
			return err
		}()
	}()
	if err := <-made; err != nil {
		return nil, fmt.Errorf("making a network namespace: %w", err)
	}
	return m, m.run("", "ip", "link", "set", "lo", "up")
}

// newNetwork makes the machines, the links between them and the firewalls. This process must be in a namespace of its own.
func newNetwork() (*network, error) {
	n := &network{people: &machine{name: "people", path: fmt.Sprintf("/proc/%d/ns/net", os.Getpid())}}
	var err error
	if n.vault, err = newMachine("vault"); err != nil {
		return nil, err
	}
	if n.storefront, err = newMachine("storefront"); err != nil {
		return nil, err
	}
	if err := n.people.run("", "ip", "link", "set", "lo", "up"); err != nil {
		return nil, err
	}
	link := func(a, b *machine, addressA, addressB string) error {
		return errors.Join(
			a.run("", "ip", "link", "add", "to-"+b.name, "type", "veth", "peer", "name", "to-"+a.name, "netns", b.path),
			a.run("", "ip", "address", "add", addressA+"/30", "dev", "to-"+b.name),
			b.run("", "ip", "address", "add", addressB+"/30", "dev", "to-"+a.name),
			a.run("", "ip", "link", "set", "to-"+b.name, "up"),
			b.run("", "ip", "link", "set", "to-"+a.name, "up"),
		)
	}
	if err := errors.Join(
		link(n.vault, n.storefront, vaultToStorefront, storefrontToVault),
		link(n.vault, n.people, vaultToPeople, peopleToVault),
		link(n.storefront, n.people, storefrontToPeople, peopleToStorefront),
	); err != nil {
		return nil, err
	}
	n.vault.pass = []passage{{true, storefrontToVault, vaultPort}, {true, peopleToVault, ownersPort}}
	n.storefront.pass = []passage{{true, peopleToStorefront, storefrontPort}, {false, vaultToStorefront, vaultPort}}
	n.people.pass = []passage{{false, storefrontToPeople, storefrontPort}, {false, vaultToPeople, ownersPort}}
	return n, errors.Join(n.vault.guard(), n.storefront.guard(), n.people.guard())
}

// guard sets the machine's firewall, in one step. It drops without a word and keeps no state, so one that comes up again knows no less than before.
func (m *machine) guard() error {
	var in, out []string
	for _, link := range m.lost {
		in, out = append(in, fmt.Sprintf("iifname %q drop", link)), append(out, fmt.Sprintf("oifname %q drop", link))
	}
	for _, port := range m.stale {
		in, out = append(in, "tcp dport "+port+" drop"), append(out, "tcp sport "+port+" drop")
	}
	in, out = append(in, `iifname "lo" accept`), append(out, `oifname "lo" accept`)
	for _, p := range m.pass {
		if p.serves {
			in, out = append(in, "ip saddr "+p.peer+" tcp dport "+p.port+" accept"), append(out, "ip daddr "+p.peer+" tcp sport "+p.port+" accept")
		} else {
			in, out = append(in, "ip saddr "+p.peer+" tcp sport "+p.port+" accept"), append(out, "ip daddr "+p.peer+" tcp dport "+p.port+" accept")
		}
	}
	rules := "table inet guard\ndelete table inet guard\ntable inet guard {\n"
	for _, chain := range []struct {
		hook  string
		lines []string
	}{{"input", in}, {"output", out}, {"forward", nil}} {
		rules += fmt.Sprintf("chain %s { type filter hook %s priority 0; policy drop;\n%s\n}\n", chain.hook, chain.hook, strings.Join(chain.lines, "\n"))
	}
	return m.run(rules+"}\n", "nft", "-f", "-")
}

// lose has every packet on links of the machine vanish, in both directions. Without links: none.
func (m *machine) lose(links ...string) error {
	m.lost = links
	return m.guard()
}

// forsake has every packet of the connections vanish that the machine has now to a port elsewhere, and of no other: as when the peer lost its power, came back
// and knows of none, and a firewall in between does not tell. Without a port: none.
func (m *machine) forsake(port string) error {
	m.stale = nil
	if port != "" {
		if err := m.do(func() error {
			table, err := os.ReadFile("/proc/thread-self/net/tcp")
			if err != nil {
				return err
			}
			remote, err := strconv.Atoi(port)
			for _, line := range strings.Split(string(table), "\n") {
				fields := strings.Fields(line)
				if len(fields) < 4 || fields[3] != "01" || !strings.HasSuffix(fields[2], fmt.Sprintf(":%04X", remote)) {
					continue
				}
				local, err := strconv.ParseUint(fields[1][strings.Index(fields[1], ":")+1:], 16, 16)
				if err != nil {
					return err
				}
				m.stale = append(m.stale, fmt.Sprint(local))
			}
			return err
		}); err != nil {
			return err
		}
		if len(m.stale) == 0 {
			return errors.New("there is no connection to forsake")
		}
	}
	return m.guard()
}

// link sets a link of the machine up or down. Down, its peer is told nothing but that.
func (m *machine) link(name, state string) error { return m.run("", "ip", "link", "set", name, state) }

// narrow has a link of the machine send no faster than a rate, with a queue of two seconds, and widen undoes it.
func (m *machine) narrow(name, rate string) error {
	return m.run("", "tc", "qdisc", "replace", "dev", name, "root", "tbf", "rate", rate, "burst", "3000", "latency", "2s")
}

func (m *machine) widen(name string) error {
	return m.run("", "tc", "qdisc", "delete", "dev", name, "root")
}

// until calls f every 20 ms until it returns true, and returns how long that took.
func until(t *testing.T, bound time.Duration, what string, f func() bool) time.Duration {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if f() {
			return time.Since(begin)
		}
		if time.Since(begin) > bound {
			t.Fatalf("not within %s: %s", bound, what)
		}
	}
}
