//go:build root

package fault

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loopPrefix begins the name of every folder in which this package mounts something; the number of the process follows.
const loopPrefix = "sallyport-loop-"

// loopFolder is a folder of the test's own in which file systems may be mounted. Nothing stays mounted when the test ends, also when it is
// interrupted, and what a test left behind whose process was killed is cleaned up here.
func loopFolder(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("mounting file systems needs root; without, leave out -tags root")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Fatalf("loop devices are needed: %v", err)
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Fatalf("mkfs.ext4 is needed (Debian: e2fsprogs): %v", err)
	}
	tidy.Do(func() {
		abandoned, err := filepath.Glob(filepath.Join(os.TempDir(), loopPrefix+"*"))
		must(t, err)
		for _, dir := range abandoned {
			number, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), loopPrefix), "-")
			if pid, err := strconv.Atoi(number); err == nil && syscall.Kill(pid, 0) != nil {
				clearFolder(dir)
			}
		}
		interrupts := make(chan os.Signal, 1)
		signal.Notify(interrupts, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		go func() {
			<-interrupts
			mine, _ := filepath.Glob(filepath.Join(os.TempDir(), fmt.Sprintf("%s%d-*", loopPrefix, os.Getpid())))
			for _, dir := range mine {
				clearFolder(dir)
			}
			os.Exit(130) // the daemons get a signal when this process ends
		}()
	})
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-*", loopPrefix, os.Getpid()))
	must(t, err)
	t.Cleanup(func() {
		if err := clearFolder(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

var tidy sync.Once

// clearFolder unmounts everything below a folder, the inner ones first, and removes it. The loop devices go with the file systems. What is still in use
// is unmounted when that ends.
func clearFolder(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(mounts)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if fields := strings.Fields(lines[i]); strings.HasPrefix(fields[1], dir+"/") {
			if err := unix.Unmount(fields[1], unix.MNT_DETACH); err != nil {
				return &os.PathError{Op: "unmount", Path: fields[1], Err: err}
			}
		}
	}
	return os.RemoveAll(dir)
}

// loop is an ext4 file system in a file, whose power can be cut.
type loop struct {
	image, at string
	options   string
}

// newLoop makes a file system of a size in bytes, which takes room only for what is written, and mounts it at a folder, which is made if need be.
func newLoop(t *testing.T, image, at string, size int64) *loop {
	t.Helper()
	l := &loop{image: image, at: at, options: "loop,commit=300"} // what nobody syncs stays in memory for long
	f, err := os.OpenFile(image, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	must(t, err)
	must(t, errors.Join(f.Truncate(size), f.Close()))
	must(t, command("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", image))
	must(t, os.MkdirAll(at, 0o700))
	must(t, l.mount())
	must(t, os.Remove(filepath.Join(at, "lost+found")))
	return l
}

func (l *loop) mount() error { return command("mount", "-o", l.options, l.image, l.at) }

// sync writes down everything that is there now.
func (l *loop) sync() error {
	f, err := os.Open(l.at)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// cut ends the file system as a power cut would: what was not flushed is not on the disk, and nothing can be written or synced any more. What is in
// the page cache can still be read, until remount.
func (l *loop) cut() error {
	f, err := os.Open(l.at)
	if err != nil {
		return err
	}
	defer f.Close()
	const shutdown = 0x8004587D // FS_IOC_SHUTDOWN, _IOR('X', 125, __u32) of linux/fs.h
	how := uint32(2)            // EXT4_GOING_FLAGS_NOLOGFLUSH of fs/ext4/ext4.h
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), shutdown, uintptr(unsafe.Pointer(&how))); errno != 0 {
		return &os.PathError{Op: "FS_IOC_SHUTDOWN", Path: l.at, Err: errno}
	}
	return nil
}

// remount mounts the file system anew, from what is on the disk; the kernel replays the file system's own journal. Whoever used it must be dead,
// and is waited for.
func (l *loop) remount() error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Unmount(l.at, 0)
		if err == nil {
			return l.mount()
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return &os.PathError{Op: "unmount", Path: l.at, Err: err}
		}
	}
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
