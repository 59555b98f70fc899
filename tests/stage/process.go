package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
)

// startTimeout is how long a daemon may take until it is ready; a slow machine under a race detector is allowed for.
const startTimeout = 60 * time.Second

// Daemon is a vault or storefront as a process: it can be started, stopped, killed and started again. Methods may be called from several
// goroutines: a test's proxy may kill what the test starts again.
type Daemon struct {
	Name   string
	Log    string // file with its standard error, appended to by each start
	config string
	ready  string // JSON file that it writes when it listens
	env    []string

	command []string // the program, perhaps with what puts it into another place before it

	current atomic.Pointer[process] // nil before the first start
}

// process is one life of a daemon.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has been waited for
}

// kill ends the process and waits.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may be over already
	<-p.exited
}

// Start starts the process and waits until it listens.
func (d *Daemon) Start(ctx context.Context) error {
	if err := os.Remove(d.ready); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	logFile, err := os.OpenFile(d.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	p := &process{cmd: exec.Command(d.command[0], append(slices.Clone(d.command[1:]), "serve", "--config", d.config)...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = logFile, logFile
	p.cmd.Env = append(os.Environ(), d.env...)
	// A daemon does not outlive the stage, and does not get the terminal's Ctrl-C: the stage stops it in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("starting the %s: %w", d.Name, err)
	}
	go func() {
		_ = p.cmd.Wait() // the log and the callers tell why
		close(p.exited)
	}()
	d.current.Store(p)
	deadline := time.NewTimer(startTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			p.kill()
			return ctx.Err()
		case <-p.exited:
			return fmt.Errorf("the %s did not start:\n%s", d.Name, d.tail())
		case <-deadline.C:
			p.kill()
			return fmt.Errorf("the %s is not ready after %s:\n%s", d.Name, startTimeout, d.tail())
		case <-tick.C:
			if _, err := os.Stat(d.ready); err == nil {
				return nil
			}
		}
	}
}

// Addresses are what the daemon wrote into its ready file: name of the listener to host:port.
func (d *Daemon) Addresses() (map[string]string, error) {
	data, err := os.ReadFile(d.ready)
	if err != nil {
		return nil, err
	}
	var ready struct {
		Addresses map[string]string `json:"addresses"`
	}
	if err := json.Unmarshal(data, &ready); err != nil {
		return nil, fmt.Errorf("%s: %w", d.ready, err)
	}
	return ready.Addresses, nil
}

// living is the process if it lives, else nil.
func (d *Daemon) living() *process {
	p := d.current.Load()
	if p == nil {
		return nil
	}
	select {
	case <-p.exited:
		return nil
	default:
		return p
	}
}

// Running reports whether the process lives.
func (d *Daemon) Running() bool { return d.living() != nil }

// PID is the process, 0 if it does not run.
func (d *Daemon) PID() int {
	if p := d.living(); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

// Stop asks the process to end and waits; one that does not is killed, and that is an error. So is a data race that was found in any of its lives, or in a process that it started: by
// commands that were built with -race.
func (d *Daemon) Stop() error { return errors.Join(d.stop(), d.raced()) }

// raced is an error with what the race detector said, if it said anything.
func (d *Daemon) raced() error {
	data, err := os.ReadFile(d.Log)
	if errors.Is(err, os.ErrNotExist) { // it was never started
		return nil
	}
	if at := bytes.Index(data, []byte("WARNING: DATA RACE")); at >= 0 {
		return fmt.Errorf("a data race in the %s:\n%.8000s", d.Name, data[at:])
	}
	return err
}

func (d *Daemon) stop() error {
	p := d.living()
	if p == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			return fmt.Errorf("the %s stopped with exit code %d:\n%s", d.Name, code, d.tail())
		}
		return nil
	case <-time.After(30 * time.Second):
		p.kill()
		return fmt.Errorf("the %s did not stop in 30 s and was killed", d.Name)
	}
}

// Kill ends the process as a crash would: no signal handler runs.
func (d *Daemon) Kill() {
	if p := d.living(); p != nil {
		p.kill()
	}
}

// Signal sends the process a signal: SIGSTOP hangs it as a hung machine would hang, SIGCONT lets it go on.
func (d *Daemon) Signal(signal syscall.Signal) error {
	if p := d.living(); p != nil {
		return p.cmd.Process.Signal(signal)
	}
	return fmt.Errorf("the %s does not run", d.Name)
}

// tail is the end of the daemon's log.
func (d *Daemon) tail() string {
	data, err := os.ReadFile(d.Log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// Result is what a command said.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Binaries are the built commands.
type Binaries struct{ HSM, Vault, Storefront, Sallyport, Witness, KeyServer string }

// builtBinaries names the folder of commands that were built for all tests of a run: ./tests/run links them once, instead of once a package.
const builtBinaries = "SALLYPORT_BINARIES"

func binariesIn(dir string) Binaries {
	return Binaries{filepath.Join(dir, "sallyport-hsm"), filepath.Join(dir, "sallyport-vault"), filepath.Join(dir, "sallyport-storefront"), filepath.Join(dir, "sallyport"), filepath.Join(dir, "sallyport-witness"), filepath.Join(dir, "sallyport-keyserver")}
}

// Build builds the six commands of the module in folder into folder bin. If SALLYPORT_BINARIES names a folder, those in it are
// taken as they are.
func Build(ctx context.Context, module, bin string) (Binaries, error) {
	if dir := os.Getenv(builtBinaries); dir != "" {
		b := binariesIn(dir)
		for _, name := range []string{b.HSM, b.Vault, b.Storefront, b.Sallyport, b.Witness, b.KeyServer} {
			if _, err := os.Stat(name); err != nil {
				return b, fmt.Errorf("%s names a folder without one of the commands: %w", builtBinaries, err)
			}
		}
		return b, nil
	}
	b := binariesIn(bin)
	args := []string{"-o", bin + string(filepath.Separator)}
	args = append(args, "./hardware/cmd/sallyport-hsm", "./vault/cmd/sallyport-vault", "./storefront/cmd/sallyport-storefront", "./storefront/cmd/sallyport", "./vault/cmd/sallyport-witness", "./vault/cmd/sallyport-keyserver")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return b, err
	}
	return b, build(ctx, module, args...)
}

// build runs go build in a module.
func build(ctx context.Context, module string, args ...string) error {
	// No version control stamp: git refuses to look into a clone that belongs to another user.
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-buildvcs=false"}, args...)...)
	cmd.Dir = module
	// Interrupted, the go command removes its temporary folder.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGINT}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the commands: %w\n%s", err, out)
	}
	return nil
}

// run runs a command to its end.
func run(ctx context.Context, env []string, stdin string, name string, args ...string) (Result, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &errs, append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // it does not outlive the stage either
	err := cmd.Run()
	r := Result{out.String(), errs.String(), cmd.ProcessState.ExitCode()} // -1 if it did not run
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return r, fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	return r, nil
}
