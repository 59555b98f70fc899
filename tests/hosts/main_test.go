//go:build root

package hosts

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/tests/stage"
)

var (
	rounds = flag.Int("rounds", 1, "how often each failure is played")
	every  = flag.Bool("every", false, "also play those that take longest")
)

// wires is the network that the tests share.
var wires *network

// binariesVariable tells the child, which runs the tests in a network namespace, where the commands are.
const binariesVariable = "SALLYPORT_HOSTS_BINARIES"

// The first thread stays the main function's, and with it in the namespace that this process was started in: /proc/PID/ns/net is the first thread's.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	flag.Parse()
	status, err := 0, error(nil)
	if os.Getenv(binariesVariable) == "" {
		status, err = outside()
	} else if wires, err = newNetwork(); err == nil {
		status = m.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// outside builds the commands and runs this program again in a network namespace of its own, which ends with it.
func outside() (int, error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("the tests of two hosts make network namespaces, which takes root")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	dir, err := os.MkdirTemp("", "sallyport-hosts-")
	if err != nil {
		return 0, err
	}
	defer tidy(dir)
	root, err := stage.ModuleRoot()
	if err != nil {
		return 0, err
	}
	built, err := stage.Build(ctx, root, filepath.Join(dir, "bin"))
	if err != nil {
		return 0, err
	}
	// The child ends with this thread, which is the first.
	child := exec.Command("/proc/self/exe", os.Args[1:]...)
	child.Args[0] = os.Args[0]
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.Env = append(os.Environ(), binariesVariable+"="+filepath.Dir(built.Vault), "TMPDIR="+dir)
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	if err := child.Start(); err != nil {
		return 0, fmt.Errorf("starting the tests in a network namespace: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	select {
	case <-ctx.Done():
		_ = child.Process.Signal(syscall.SIGTERM)
		<-ended
		return 1, errors.New("interrupted")
	case err := <-ended:
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			return max(exit.ExitCode(), 1), nil
		}
		return 0, err
	}
}

// tidy ends the daemons that an interrupted run left, which are stopping by themselves, and removes the folder. Badger waits for ever for one that is not
// there any more.
func tidy(dir string) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		environments, _ := filepath.Glob("/proc/[0-9]*/environ")
		found := false
		for _, path := range environments {
			if all, err := os.ReadFile(path); err == nil && slices.Contains(strings.Split(string(all), "\x00"), "TMPDIR="+dir) {
				pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
				found = syscall.Kill(pid, syscall.SIGKILL) == nil || found
			}
		}
		if !found {
			break
		}
	}
	_ = os.RemoveAll(dir) // a temporary folder
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
