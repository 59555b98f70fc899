package fault

import (
	"fmt"
	"os"
	"os/exec"
	"unsafe"

	"golang.org/x/sys/unix"
)

// unsyncedVariable in the environment makes this test binary the program that it names, with its arguments, in which no fsync does anything. It is
// the control of the power cuts: they must find that such a daemon loses what it acknowledged, or they would find nothing.
const unsyncedVariable = "SALLYPORT_FAULT_UNSYNCED"

// becomeUnsynced does so if it is asked to. It returns only if it is not, or with an exit status if it cannot.
func becomeUnsynced() (status int, ok bool) {
	program := os.Getenv(unsyncedVariable)
	if program == "" {
		return 0, false
	}
	os.Unsetenv(unsyncedVariable)
	err := forgetSyncs()
	if err == nil {
		path, lookErr := exec.LookPath(program)
		if err = lookErr; err == nil {
			err = unix.Exec(path, append([]string{program}, os.Args[1:]...), os.Environ())
		}
	}
	fmt.Fprintln(os.Stderr, "a daemon without fsync:", err)
	return 1, true
}

// forgetSyncs has the kernel answer every call that flushes with success and do nothing, in this process and in what it becomes and starts.
func forgetSyncs() error {
	syncs := []uint32{unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNCFS, unix.SYS_SYNC, unix.SYS_MSYNC, unix.SYS_SYNC_FILE_RANGE}
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // the number of the system call
	for i, nr := range syncs {
		program = append(program, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jt: uint8(len(syncs) - i)})
	}
	program = append(program,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO}) // with errno 0
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up privileges: %w", err)
	}
	// SECCOMP_FILTER_FLAG_TSYNC: all threads, whichever calls exec.
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&filter))); errno != 0 {
		return fmt.Errorf("filtering system calls: %w", errno)
	}
	return nil
}
