// Package keylog is the write path of the key-use log: it records a decision
// durably, and in an order that cannot be changed later, before the token acts
// on it.
//
// # What it is for
//
// The vault decides, records, then acts: no record, no derive. The record is an
// entry of a transparency log: a tree of hashes (RFC 6962, section 2.1; computed
// with golang.org/x/mod/sumdb/tlog) whose root the token signs. An owner, a
// reader or an auditor who holds one signed root can later demand a proof that
// an entry is in the log, or that a newer root still contains everything the
// older one did. This package keeps the entries, the tree and the signed root.
// It knows nothing of what an entry means, and nothing of PKCS#11: the token is
// a [Signer] and a [StateKeeper] to it.
//
// # The normal path
//
// [Create] makes a log, once, as an explicit act of the ceremony. [Open] opens
// it at each start and verifies every byte that anything depends on.
// [Log.Append] takes one or more records and returns when all of this has
// happened, in this order:
//
//  1. the records are in the journal, followed by a seal, and fsynced;
//  2. the token has signed the root of the tree that ends with them;
//  3. the signed root is in the signer state, outside the log's folder, and
//     fsynced.
//
// One goroutine owns the files and does this for everyone: whatever is queued
// while one commit is under way goes out with the next. There is no timer, so a
// lone writer never waits for company, and 64 writers share two fsyncs and one
// token signature.
//
// An entry's leaf is its time (Unix milliseconds, 8 bytes, big-endian) followed
// by the entry. The log stamps the time when it commits, so times never go
// backwards. A record's body lies beside the entry in the same frame and is not
// hashed by the tree: it can be erased when its retention ends ([Log.Erase]), and
// every proof stays valid. The price is that the log vouches for no body. Whoever needs
// that puts a salted commitment to the body into the entry, and checks it.
//
// # What lies where
//
//	Dir/journal-N       frames of records and seals; N is the first index; the truth
//	Dir/checkpoint      a copy of the newest signed root, for people and auditors
//	Dir/hashes          the tree's hashes, in tlog's order; made anew at open
//	Dir/offsets         where each record's frame begins; made anew at open
//	Cold/journal-N      old segments, if there is cold storage
//	StateDir/signer-state   the seal key and the last signed root
//	StateDir/border     what a start must know of the segments in cold storage
//	token (StateKeeper) a copy of the last signed root, up to a minute old
//
// What is signed is computed from the journal alone, in memory. (Of segments in
// cold storage it was computed when they were moved; see cold.go.) The hash and
// offset files only serve proofs and reads; nothing they hold is ever signed.
//
// # What it refuses
//
// The signer is stateful. It signs only trees that begin with the last tree it
// signed. [Open] computes the tree from the journal and refuses, with a
// [*DamageError] that names the place, a journal that was cut, edited, reordered
// or continued by someone else, a signer state older than the token's copy, and
// any disagreement between the two and the checkpoint file. It refuses to guess:
// if the state file or the token's copy is gone, the log does not open.
//
// Each commit ends with a seal, a MAC over the new root under a key that lies in
// StateDir. It says which frames this log wrote before it could have them
// signed. Without it, whoever can write to Dir could append well-formed frames
// and have them signed at the next start. The seals also name the commit in
// which an edit lies.
//
// Limits, said plainly. Who can write to Dir and StateDir both, and puts both
// back to a moment less than a minute ago, before the token received a newer
// copy, is not noticed here; clients that keep the last checkpoint notice. Who
// also holds the token's PIN can sign any tree: that shows only to clients and
// witnesses.
//
// # When it stops
//
// After an error of a write, an fsync or a signature the outcome is unknown:
// the data may be on disk or not. The log stops ([ErrFatal]); every later Append
// fails until the log is opened, and so verified, again. A clock that steps
// stops it too ([ErrClock]). A disk that is nearly full does not: Append refuses
// with [ErrNoSpace] while a reserve is left, and goes on when there is room.
//
// # What the caller owes
//
// StateDir must not be in the same backup set as Dir: restoring both together is
// a rollback, and is refused as one. A [StateKeeper] must be durable when Save
// returns. Entries hold pseudonymous ids and commitments, never values or keys.
// Only local file systems that honour fsync and flock are supported, on Linux.
package keylog

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Limits of what one record and one call of Append may hold, and so of what the
// log ever keeps in memory at once.
const (
	MaxRecord = 4 << 20  // entry and body together
	MaxBatch  = 64 << 20 // all records of one Append
)

const (
	defaultSegmentBytes = 64 << 20
	defaultReserve      = 64 << 20

	clockTolerance = 5 * time.Second
	signTimeout    = 15 * time.Second
	saveTimeout    = 30 * time.Second
	saveInterval   = time.Minute
)

var (
	// ErrFatal means that a write, an fsync or a signature failed and that
	// nobody knows which records are on disk. It sticks until the log is
	// opened again.
	ErrFatal = errors.New("key-use log stopped, outcome unknown")

	// ErrClock means that the wall clock stepped against the monotonic clock, or
	// is earlier than the newest entry. It sticks until the log is opened again.
	ErrClock = errors.New("clock cannot be trusted")

	// ErrNoSpace means that only the reserve is left on the disk. Nothing was
	// recorded; Append works again when there is room.
	ErrNoSpace = errors.New("no space left but the reserve")

	// ErrStaleCopy is a reason of ill health: the token's copy of the signer
	// state could not be renewed. Key use goes on; protection against rollback
	// rests on an older copy meanwhile.
	ErrStaleCopy = errors.New("token's copy of the signer state is stale")

	// ErrCold means that cold storage, or a segment in it, cannot be reached or
	// written. Key use goes on; what lies there cannot be read.
	ErrCold = errors.New("cold storage of the key-use log does not work")

	// ErrLocked means that another process has the log open.
	ErrLocked = errors.New("key-use log is in use")

	// ErrExists is Create's answer where a log is, or was.
	ErrExists = errors.New("a key-use log exists already")

	// ErrNotCreated is Open's answer where no trace of a log is found.
	ErrNotCreated = errors.New("no key-use log here; create it first")

	// ErrClosed means that Close was called.
	ErrClosed = errors.New("key-use log is closed")

	// ErrTooLarge means that a record exceeds MaxRecord, or a call MaxBatch.
	ErrTooLarge = errors.New("record too large")

	// ErrRange means that an index or a tree size lies outside the signed log.
	ErrRange = errors.New("outside the signed log")
)

// A DamageError says that the log is not the one that was signed, and where.
type DamageError struct {
	File   string // base name of the file, or "token" for the StateKeeper's copy
	Offset int64  // byte offset in File, -1 if no single place
	Index  int64  // first entry in doubt, -1 if none
	What   string
}

func (e *DamageError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "key-use log damaged: %s", e.File)
	if e.Offset >= 0 {
		fmt.Fprintf(&b, ", offset %d", e.Offset)
	}
	if e.Index >= 0 {
		fmt.Fprintf(&b, ", entry %d", e.Index)
	}
	return b.String() + ": " + e.What
}

// A Record is what a caller appends.
type Record struct {
	Entry []byte // what the tree commits to, for ever
	Body  []byte // kept beside it, not hashed by the tree, erasable
}

// A Position is where a record came to lie.
type Position struct {
	Index int64
	Time  time.Time // UTC, whole milliseconds
}

// A Checkpoint is a signed root. The zero Checkpoint is none.
type Checkpoint struct {
	Size int64
	Root tlog.Hash
	Note string // C2SP tlog-checkpoint in a C2SP signed-note
}

// Leaf returns the bytes whose RFC 6962 leaf hash the tree holds for an entry.
func Leaf(t time.Time, entry []byte) []byte {
	return append(appendU64(make([]byte, 0, 8+len(entry)), uint64(t.UnixMilli())), entry...)
}

// A Signer makes Ed25519 signatures with the log key, which never leaves the
// token. An implementation may try again after it replaced a broken session:
// signing the same root twice says nothing new. An error it returns stops the
// log, see [ErrFatal].
type Signer interface {
	Sign(ctx context.Context, message []byte) ([]byte, error)
}

// A StateKeeper keeps one small value in the token. Save replaces the value
// such that a crash leaves the old or the new one; it is durable when Save
// returns. Load returns nil and no error if nothing was ever saved. Save is
// called at start, at stop and every minute, never while an Append waits for it.
type StateKeeper interface {
	Save(ctx context.Context, state []byte) error
	Load(ctx context.Context) ([]byte, error)
}

// Config says where a log lies and who signs it.
type Config struct {
	// Dir holds the journal. It is not trusted: whatever is changed in it while
	// the log is closed is noticed at open.
	Dir string

	// StateDir holds the last signed root and the seal key. It is trusted to be
	// private and is not inside Dir.
	StateDir string

	// Origin is the first line of every checkpoint and the name of the log key
	// in signatures: a host name and path, without spaces or plus signs.
	Origin string

	// PublicKey is the log key's public half, from the vault document.
	PublicKey ed25519.PublicKey

	Signer Signer
	State  StateKeeper

	// SegmentBytes is the size from which a new journal segment is begun at the
	// next commit. Zero means 64 MiB.
	SegmentBytes int64

	// Reserve is the free space, in bytes, below which Append refuses early with
	// ErrNoSpace. Zero means 64 MiB.
	Reserve int64

	// Cold is a folder on another file system where old segments go. It is not
	// trusted. Empty: they stay.
	Cold string

	// ColdAfter is the age of its newest entry from which on a segment is moved,
	// and ColdBytes the size of all segments in Dir from which on the oldest is.
	// Zero: not for that reason. The newest segment is never moved.
	ColdAfter time.Duration
	ColdBytes int64

	// Everything makes Open read and verify segments in cold storage too, and
	// make the indexes anew from them. Without it, it reads none of them.
	Everything bool

	// Clock returns the wall clock and a monotonic clock read at one instant.
	// Nil means the system's.
	Clock func() (wall time.Time, monotonic time.Duration)

	disk disk
}

// complete checks the configuration, fills in what may be left out and returns
// the verifier that belongs to the log key.
func (c *Config) complete() (note.Verifier, error) {
	if c.Dir == "" || c.StateDir == "" {
		return nil, errors.New("log and state folders are required")
	}
	if c.Signer == nil || c.State == nil {
		return nil, errors.New("signer and state keeper are required")
	}
	if c.SegmentBytes < 0 || c.Reserve < 0 {
		return nil, errors.New("segment size and reserve must not be negative")
	}
	if c.Cold == "" && (c.ColdAfter != 0 || c.ColdBytes != 0) || c.ColdAfter < 0 || c.ColdBytes < 0 {
		return nil, errors.New("when to move segments to cold storage is not negative, and needs a folder for it")
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = defaultSegmentBytes
	}
	if c.Reserve == 0 {
		c.Reserve = defaultReserve
	}
	if c.Clock == nil {
		c.Clock = systemClock()
	}
	c.disk.complete()
	if len(c.PublicKey) != ed25519.PublicKeySize {
		return nil, errors.New("log key is not an Ed25519 public key")
	}
	key, err := note.NewEd25519VerifierKey(c.Origin, c.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("naming the log key: %w", err)
	}
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return nil, fmt.Errorf("origin %q cannot name a log key: %w", c.Origin, err)
	}
	return verifier, nil
}

// apart refuses a state folder that is the log's folder or lies inside it, links
// resolved.
func (c *Config) apart() error {
	dir, err := resolve(c.Dir)
	if err != nil {
		return err
	}
	state, err := resolve(c.StateDir)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(dir, state)
	if err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return errors.New("state folder lies inside the log's folder")
	}
	if c.Cold == "" {
		return nil
	}
	cold, err := resolve(c.Cold)
	if err == nil && (cold == dir || cold == state) {
		return errors.New("cold storage needs a folder of its own")
	}
	return nil // a missing one is a reason of ill health
}

func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

func systemClock() func() (time.Time, time.Duration) {
	start := time.Now()
	return func() (time.Time, time.Duration) {
		now := time.Now() // one reading of both clocks
		return now.Round(0), now.Sub(start)
	}
}
