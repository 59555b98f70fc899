// Package witness is a C2SP tlog-witness: it cosigns the checkpoints of logs that only ever grow. It runs on another machine than the log, best in
// another organisation, and needs nothing of the log but its public keys.
//
// # What it is for
//
// Whoever controls a vault and its token can sign two histories and show each of them to somebody else. A witness sees one of them: it signs, with the
// time, that a tree is the newest that it saw of a log and holds all those that it saw before. Who demands that n of some witnesses signed sees what these
// n saw.
//
// # The normal path
//
// [Open] takes the logs that it is for and the folders that it keeps its state in. A log sends what [Witness.AddCheckpoint] takes: the size of the last tree that
// was cosigned, a consistency proof from there, and the new checkpoint with its signatures. It gets signature lines. [Witness.Handler] is the same over HTTP.
//
// # What it refuses
//
// Every signature that its configuration names for a log must be there: of a vault the token's and the host's. The proof must lead from the tree that
// was cosigned last. So it never signs two roots of one size, and never a tree that another one does not continue, also if many ask at once: of one log
// one request at a time is decided, and what is decided is on disk before the signature leaves the process.
//
// # State
//
// Of each log there are two files. In the folder State lies the last checkpoint with the log's lines and the witness's own: whoever changes it without
// the witness's key is found out at the start. In the folder Seen lies its size and root once more, written after it. A state that is older than that, or
// gone, is refused: somebody put back a backup. So the two folders are not in one backup; who puts back both can have a second root signed, and then
// only the log's own record, or another witness, shows it. If Seen is the older one nothing is lost.
//
// After an error of a write or sync nobody knows what is on disk: the witness signs nothing more of that log until it is started again. A clock that
// is earlier than the last cosignature stops it for as long as that is so.
package witness

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// A Log is one whose checkpoints are cosigned. Its origin is the name of its key.
type Log struct {
	Key  policies.LogKey
	Also []evidence.Cosigner // whose lines must be there too: the host's, if it is a vault's log
}

// VaultLog is the key-use log of a vault.
func VaultLog(v *policies.VaultDocument) Log {
	return Log{v.LogKey, []evidence.Cosigner{evidence.HostCosigner(v)}}
}

// Config says whose checkpoints are cosigned, and by what.
type Config struct {
	Logs  []Log
	Keys  []*evidence.CosignerKey // an answer has a line of each
	State string                  // folder of the last checkpoints
	Seen  string                  // folder of what was last seen; not in the same backup as State
	Now   func() time.Time        // nil: the system's clock
	Log   *slog.Logger            // nil: silent

	fault func(step string) error // in tests: asked before each change of a file
}

// ErrState means that a file of the witness's state is damaged, gone, or older than what was cosigned.
var ErrState = errors.New("the state of the witness cannot be trusted")

// A Witness cosigns. Its methods may be called from several goroutines.
type Witness struct {
	cfg  Config
	lock *os.File // held for as long as the witness is open
	logs map[string]*one
}

// one is what is known of one log.
type one struct {
	Log
	name string // of its files: SHA-256 of the origin, in hex

	mu     sync.Mutex // held from the decision until the state is on disk
	last   evidence.Checkpoint
	at     time.Time // of the last cosignature
	note   []byte    // the last checkpoint with its lines; nil: none was ever cosigned
	broken error     // why nothing is signed until the next start
}

// Refusal is why a checkpoint is not cosigned. Status and body are those of C2SP tlog-witness.
type Refusal struct {
	Status int    // of HTTP
	Text   string // for a person
	Size   uint64 // with http.StatusConflict: of the checkpoint that was cosigned last
}

// Error is the text.
func (r *Refusal) Error() string { return r.Text }

func refuse(status int, format string, args ...any) *Refusal {
	return &Refusal{Status: status, Text: fmt.Sprintf(format, args...)}
}

// Open reads the state. Another witness cannot open the same one at the same time. The folders must be there.
func Open(cfg Config) (opened *Witness, err error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.fault == nil {
		cfg.fault = func(string) error { return nil }
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	w := &Witness{cfg: cfg, logs: map[string]*one{}}
	defer func() {
		if err != nil {
			_ = w.Close()
		}
	}()
	for _, folder := range []string{cfg.State, cfg.Seen} { // which no start makes: with it everything that was cosigned would be gone
		if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: the folder %s is not there", ErrState, folder)
		}
	}
	if w.lock, err = os.OpenFile(filepath.Join(cfg.State, "lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("opening the witness's state: %w", err)
	}
	if err := unix.Flock(int(w.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("opening the witness's state: another witness is at it: %w", err)
	}
	for _, l := range cfg.Logs {
		sum := sha256.Sum256([]byte(l.Key.Name))
		o := &one{Log: l, name: hex.EncodeToString(sum[:])}
		if err := w.load(o); err != nil {
			return nil, fmt.Errorf("log %s: %w", l.Key.Name, err)
		}
		w.logs[l.Key.Name] = o
	}
	return w, nil
}

func (c *Config) validate() error {
	if len(c.Keys) == 0 || len(c.Logs) == 0 {
		return errors.New("a witness needs a key, and a log to witness")
	}
	for i, l := range c.Logs {
		if _, err := note.NewEd25519VerifierKey(l.Key.Name, l.Key.PublicKey); err != nil || len(l.Key.Name) > 255 {
			return fmt.Errorf("%w: the key of log %q", policies.ErrMalformed, l.Key.Name)
		}
		if err := (&evidence.Witnesses{Of: l.Also}).Validate(); err != nil {
			return fmt.Errorf("log %s: %w", l.Key.Name, err)
		}
		if slices.ContainsFunc(c.Logs[:i], func(o Log) bool { return o.Key.Name == l.Key.Name }) {
			return fmt.Errorf("%w: log %s is named twice", policies.ErrMalformed, l.Key.Name)
		}
		for _, k := range c.Keys {
			own := k.Cosigner()
			if own.Name == l.Key.Name || slices.ContainsFunc(l.Also, func(a evidence.Cosigner) bool { return a.Name == own.Name }) {
				return fmt.Errorf("%w: log %s has the name of the witness itself", policies.ErrMalformed, l.Key.Name)
			}
		}
	}
	return nil
}

// Close lets another witness open the state.
func (w *Witness) Close() error {
	if w.lock == nil {
		return nil
	}
	return w.lock.Close()
}

// Size is the size of the last tree of a log that was cosigned; 0: none yet.
func (w *Witness) Size(origin string) uint64 {
	o := w.logs[origin]
	if o == nil {
		return 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last.Size
}

// AddCheckpoint decides on the body of an add-checkpoint request and returns the signature lines. An error that is no [*Refusal] is a fault of the witness.
func (w *Witness) AddCheckpoint(body []byte) (lines string, err error) {
	r, err := parseRequest(body)
	if err != nil {
		return "", refuse(http.StatusBadRequest, "%v", err)
	}
	o := w.logs[r.origin]
	if o == nil {
		return "", refuse(http.StatusNotFound, "this witness does not know the log")
	}
	c, err := o.open(r.note)
	switch {
	case errors.Is(err, policies.ErrSignature):
		return "", refuse(http.StatusForbidden, "%v", err)
	case err != nil:
		return "", refuse(http.StatusBadRequest, "%v", err)
	case c.Size > 1<<62:
		return "", refuse(http.StatusBadRequest, "a log of %d entries", c.Size)
	case r.old > c.Size:
		return "", refuse(http.StatusBadRequest, "the old size is %d, the new one %d", r.old, c.Size)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.broken != nil {
		return "", o.broken
	}
	if refused := o.continues(r, c); refused != nil {
		if refused.Status == http.StatusUnprocessableEntity { // what was signed here and is no continuation of it convicts the log
			w.cfg.Log.Warn("a signed checkpoint is no continuation of what was cosigned", "log", o.Key.Name, "size", c.Size, "cosigned", o.last.Size, "why", refused.Text, "checkpoint", string(o.trusted(r.note)))
		}
		return "", refused
	}
	return w.sign(o, r, c)
}

// open verifies all signatures that must be there.
func (o *one) open(text []byte) (evidence.Checkpoint, error) {
	c, _, err := evidence.OpenCosigned(string(text), o.Key, evidence.Witnesses{Need: len(o.Also), Of: o.Also})
	return c, err
}

// continues decides whether a checkpoint holds everything that was cosigned before. It is called with mu held.
func (o *one) continues(r *request, c evidence.Checkpoint) *Refusal {
	if r.old != o.last.Size {
		return &Refusal{Status: http.StatusConflict, Text: fmt.Sprintf("the last checkpoint that was cosigned is of %d entries, not %d", o.last.Size, r.old), Size: o.last.Size}
	}
	switch {
	case c.Size == 0 && c.Root != sha256.Sum256(nil):
		return refuse(http.StatusUnprocessableEntity, "the root of an empty log is not the hash of nothing")
	case r.old == 0 && len(r.proof) > 0:
		return refuse(http.StatusUnprocessableEntity, "a proof from the empty log has no hashes")
	case r.old == 0:
		return nil
	case r.old == c.Size && (c.Root != o.last.Root || len(r.proof) > 0):
		return refuse(http.StatusUnprocessableEntity, "another root was cosigned for %d entries, or a proof has hashes that needs none", c.Size)
	case r.old == c.Size:
		return nil
	}
	if err := tlog.CheckTree(r.proof, int64(c.Size), tlog.Hash(c.Root), int64(r.old), tlog.Hash(o.last.Root)); err != nil {
		return refuse(http.StatusUnprocessableEntity, "no proof that the log of %d entries continues the one of %d", c.Size, r.old)
	}
	return nil
}

// sign signs, and has the new state on disk before it returns. It is called with mu held.
func (w *Witness) sign(o *one, r *request, c evidence.Checkpoint) (string, error) {
	now := time.Unix(w.cfg.Now().Unix(), 0)
	if now.Before(o.at) {
		return "", fmt.Errorf("the clock says %s, the last cosignature %s", now.UTC().Format(time.RFC3339), o.at.UTC().Format(time.RFC3339))
	}
	var lines strings.Builder
	for _, k := range w.cfg.Keys {
		line, err := k.Cosign(o.Key.Name, c, now)
		if err != nil {
			return "", err
		}
		lines.WriteString(line)
	}
	text := append(o.trusted(r.note), lines.String()...)
	if err := w.store(o, text, c); err != nil {
		o.broken = fmt.Errorf("what is on disk is not known since an error; the witness must be started again: %w", err)
		return "", o.broken
	}
	o.last, o.at, o.note = c, now, text
	return lines.String(), nil
}

// trusted is a checkpoint with the first line of each key that is demanded, and no others: anybody could have added those.
func (o *one) trusted(text []byte) []byte {
	key, _ := note.NewEd25519VerifierKey(o.Key.Name, o.Key.PublicKey) // was tried by validate
	want := map[string]bool{key: true}
	for _, c := range o.Also {
		want[c.String()] = true
	}
	head, after, _ := bytes.Cut(text, []byte("\n\n"))
	out := append(slices.Clone(head), "\n\n"...)
	for line := range strings.Lines(string(after)) {
		for key := range want {
			name, rest, _ := strings.Cut(key, "+")
			encoded, ok := strings.CutPrefix(line, "\u2014 "+name+" ")
			raw, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(encoded, "\n"))
			if ok && err == nil && len(raw) > 4 && hex.EncodeToString(raw[:4]) == rest[:8] {
				out = append(out, line...)
				delete(want, key)
				break
			}
		}
	}
	return out
}

// A request asks for a cosignature.
type request struct {
	old    uint64
	proof  tlog.TreeProof
	note   []byte
	origin string
}

// maxProof is how many hashes a consistency proof has at most (C2SP tlog-witness).
const maxProof = 63

// parseRequest reads: "old N", a hash a line in base64, an empty line, a signed note.
func parseRequest(body []byte) (*request, error) {
	head, text, ok := bytes.Cut(body, []byte("\n\n"))
	if !ok {
		return nil, fmt.Errorf("%w: no empty line before the checkpoint", policies.ErrMalformed)
	}
	lines := strings.Split(string(head), "\n")
	number, ok := strings.CutPrefix(lines[0], "old ")
	old, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || strconv.FormatUint(old, 10) != number {
		return nil, fmt.Errorf("%w: the first line is not \"old\" and a size", policies.ErrMalformed)
	}
	if len(lines)-1 > maxProof {
		return nil, fmt.Errorf("%w: a proof of %d hashes", policies.ErrMalformed, len(lines)-1)
	}
	r := &request{old: old, note: text}
	for _, line := range lines[1:] {
		h, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(h) != tlog.HashSize || strings.ContainsAny(line, "\r\n") {
			return nil, fmt.Errorf("%w: a line of the proof is not a hash in base64", policies.ErrMalformed)
		}
		r.proof = append(r.proof, tlog.Hash(h))
	}
	if r.origin, _, ok = strings.Cut(string(text), "\n"); !ok || r.origin == "" {
		return nil, fmt.Errorf("%w: no checkpoint after the empty line", policies.ErrMalformed)
	}
	return r, nil
}
