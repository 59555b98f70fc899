package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client/safe"
)

// How long the safe of a business takes to open that met so many people, and how much memory that takes at most: in a process of its own, whose peak the kernel
// tells (VmHWM). Beside it, in a process of its own too, what cannot be spared: the file read and its chunks opened with AES-256-GCM, and nothing kept. The
// file is in the page cache for both. What is asked: under 2 seconds and 200 MB.
const (
	safePeople  = 400_000
	safeSeconds = 2
	safeMB      = 200
)

// SafeOpened is what a run of --safe found. Medians over the rounds.
type SafeOpened struct {
	People  int     `json:"people"`
	FileMB  float64 `json:"file_mb"`
	Seconds float64 `json:"open_s"`
	CPU     float64 `json:"open_processor_s"` // user and system time of that process up to then
	MB      float64 `json:"peak_mb"`
	Bare    float64 `json:"bare_s"`
	BareCPU float64 `json:"bare_processor_s"`
	BareMB  float64 `json:"bare_peak_mb"`
	Ratio   float64 `json:"ratio"` // of Seconds to Bare
	Rounds  int     `json:"rounds"`
}

// opening is what a child is told, over its standard input: the key is nothing for arguments.
type opening struct {
	Path string    `json:"path"`
	Key  []byte    `json:"key"`
	Head safe.Head `json:"head"`
	Bare bool      `json:"bare"`
}

// opened is what it answers.
type opened struct {
	People  int     `json:"people"`
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"processor_s"`
	MB      float64 `json:"mb"`
}

// runSafe is the mode of --safe. CI plays it, so it judges: memory does not depend on what else a machine does, and processor time little.
func runSafe(ctx context.Context, file string) error {
	f, err := measureSafe(ctx)
	if err != nil {
		return err
	}
	f.report()
	if err := write(file, f); err != nil {
		return err
	}
	if f.MB > safeMB || f.CPU > safeSeconds {
		return fmt.Errorf("a safe of %d people takes more than %d MB or %d s of processor time to open: look at what package safe keeps of each", f.People, safeMB, safeSeconds)
	}
	return nil
}

func measureSafe(ctx context.Context) (f SafeOpened, err error) {
	const rounds = 3
	dir, err := os.MkdirTemp("", "sallyport-load-")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(dir)
	fmt.Printf("making a safe of %d people\n", safePeople)
	o := opening{Path: filepath.Join(dir, "safe"), Key: make([]byte, safe.KeySize)}
	rand.Read(o.Key)
	if o.Head, err = makeSafe(&o); err != nil {
		return f, err
	}
	info, err := os.Stat(o.Path)
	if err != nil {
		return f, err
	}
	f = SafeOpened{People: safePeople, FileMB: float64(info.Size()) / 1e6, Rounds: rounds}
	var whole, bare []opened
	for range rounds {
		for _, into := range []*[]opened{&bare, &whole} {
			o.Bare = into == &bare
			r, err := o.child(ctx)
			if err != nil {
				return f, err
			}
			if !o.Bare && r.People != safePeople {
				return f, fmt.Errorf("the safe has %d people", r.People)
			}
			*into = append(*into, r)
		}
	}
	seconds, mb, cpu := func(r opened) float64 { return r.Seconds }, func(r opened) float64 { return r.MB }, func(r opened) float64 { return r.CPU }
	f.Seconds, f.MB, f.Bare, f.BareMB = median(whole, seconds), median(whole, mb), median(bare, seconds), median(bare, mb)
	f.CPU, f.BareCPU = median(whole, cpu), median(bare, cpu)
	f.Ratio = f.Seconds / f.Bare
	return f, nil
}

// makeSafe fills a safe with people as a business meets them: by an invitation, with one relationship, one list of items and one grant.
func makeSafe(o *opening) (safe.Head, error) {
	s, err := safe.Open(o.Path, [safe.KeySize]byte(o.Key), safe.Head{})
	if err != nil {
		return safe.Head{}, err
	}
	defer s.Close()
	for i := range safePeople {
		var p safe.Person
		rand.Read(p.ID[:])
		rand.Read(p.Mark.Hash[:])
		var invitation policies.Hash
		rand.Read(invitation[:])
		relation := safe.Relation{Nonce: policies.NewNonce()}
		rand.Read(relation.Hash[:])
		p.Relations = []safe.Relation{relation}
		p.Invite(invitation, fmt.Sprintf("customer-%07d", i), time.Unix(1_800_000_000, 0))
		p.Mark.Version, p.Purpose, p.Granted = 3, "delivery of what was ordered", 4
		if err := s.Put(&p); err != nil {
			return safe.Head{}, err
		}
	}
	err = s.Commit()
	return s.Head(), err
}

// child opens in a process of its own.
func (o *opening) child(ctx context.Context) (r opened, err error) {
	program, err := os.Executable()
	if err != nil {
		return r, err
	}
	in, err := json.Marshal(o)
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, program, "-open-safe")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("opening the safe in a process of its own: %w", err)
	}
	return r, json.Unmarshal(out, &r)
}

// openSafe is that process.
func openSafe() error {
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var o opening
	if err := json.Unmarshal(in, &o); err != nil {
		return err
	}
	var r opened
	begin := time.Now()
	if o.Bare {
		err = o.decrypt()
	} else {
		var s *safe.Safe
		if s, err = safe.Open(o.Path, [safe.KeySize]byte(o.Key), o.Head); err == nil {
			defer s.Close()
			r.People = s.Len()
		}
	}
	r.Seconds = time.Since(begin).Seconds()
	if err != nil {
		return err
	}
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return err
	}
	r.CPU = time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
	if r.MB, err = peak(); err != nil {
		return err
	}
	out, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(out)
	return err
}

// decrypt reads a safe and opens its chunks, as package safe describes them, and does nothing with what comes out.
func (o *opening) decrypt() error {
	file, err := os.Open(o.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	start := make([]byte, 4096)
	n, err := io.ReadFull(file, start)
	if err != nil {
		return err
	}
	magic := bytes.IndexByte(start[:n], '\n') + 1
	end := magic + bytes.IndexByte(start[magic:n], '\n') + 1
	if _, err := file.Seek(int64(end), io.SeekStart); err != nil {
		return err
	}
	key, err := hkdf.Key(sha256.New, o.Key, o.Head.File[:], string(policies.Encode("safe")), safe.KeySize)
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return err
	}
	headers := sha256.Sum256(start[:end])
	tag := make([]byte, aead.Overhead())
	var room, plain []byte
	for chunk := uint64(0); ; chunk++ {
		var prefix [4]byte
		if _, err := io.ReadFull(file, prefix[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		size := aead.NonceSize() + int(binary.BigEndian.Uint32(prefix[:]))
		if cap(room) < size {
			room, plain = make([]byte, size), make([]byte, 0, size)
		}
		sealed := room[:size]
		if _, err := io.ReadFull(file, sealed); err != nil {
			return err
		}
		bind := append(binary.BigEndian.AppendUint64(headers[:len(headers):len(headers)], chunk), tag...)
		copy(tag, sealed[size-len(tag):])
		if _, err := aead.Open(plain[:0], sealed[:aead.NonceSize()], sealed[aead.NonceSize():], bind); err != nil {
			return fmt.Errorf("chunk %d: %w", chunk, err)
		}
	}
}

// peak is the most memory that this process ever had, in MB.
func peak() (float64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	kilobytes, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(strings.SplitN(after, "\n", 2)[0]), "kB")))
	return float64(kilobytes) * 1024 / 1e6, err
}

func (f SafeOpened) report() {
	fmt.Printf("\nthe safe of a business that met %d people (%.0f MB): open after %.2f s (%.2f s of processor time), %.0f MB at most (asked: %d s, %d MB)\n", f.People, f.FileMB, f.Seconds, f.CPU, f.MB, safeSeconds, safeMB)
	fmt.Printf("    its bytes read and decrypted: %.2f s (%.2f s of processor time), %.0f MB; ratio %.1f\n", f.Bare, f.BareCPU, f.BareMB, f.Ratio)
}
