package ledger

import (
	"bytes"
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/redact"
	"github.com/sallyport/sallyport/vault/keylog"
)

// Config says where the database lies.
type Config struct {
	redact.Redacted

	// Dir is the database's folder. It is not trusted. Empty: no database, every start replays the whole log.
	Dir string
	// DataKey seals the database's values. It comes from the token.
	DataKey [32]byte
	// Reserve is the free space in bytes below which the database is not written. Zero means 256 MiB.
	Reserve int64
	Log     *keylog.Log
	Logger  *slog.Logger
}

// Open makes the state from the database, if it is of use, and the log.
func Open(ctx context.Context, cfg Config) (*Ledger, error) {
	if cfg.Reserve == 0 {
		cfg.Reserve = 256 << 20
	}
	l := &Ledger{state: newState()}
	if cfg.Dir != "" {
		l.index = &index{
			dir: cfg.Dir, reserve: cfg.Reserve, log: cfg.Logger, dataKey: cfg.DataKey,
			versions: map[string]uint64{}, left: map[string]struct{}{}, ciphers: map[uint64]cipher.AEAD{},
		}
		if err := l.openIndex(cfg); err != nil {
			_ = l.index.close()
			return nil, fmt.Errorf("opening the vault's database: %w", err)
		}
	}
	if err := l.replay(ctx, cfg.Log); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

func (l *Ledger) openIndex(cfg Config) error {
	// Badger would end the process on a full disk. The vault can do without an index; the next start that finds room makes one.
	free, err := freeSpace(cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		free, err = freeSpace(filepath.Dir(cfg.Dir))
	}
	if err != nil {
		return fmt.Errorf("measuring free space: %w", err)
	}
	if least := min(cfg.Reserve, 4*memTable(cfg.Reserve)); free < least {
		l.index.broken = true
		cfg.Logger.Error("the vault's database is not opened, and the whole key-use log is replayed", "folder", cfg.Dir, "free", free, "needed", least)
		return nil
	}
	m, err := l.index.load(l.state)
	if err == nil {
		err = belongs(cfg.Log, m)
	}
	if err == nil {
		return nil
	}
	if !errors.Is(err, errUseless) {
		return err
	}
	cfg.Logger.Warn("the vault's database is made anew from the key-use log", "folder", cfg.Dir, "reason", err.Error())
	l.state = newState()
	return l.index.reset()
}

// belongs refuses a database that was not made from a beginning of this log.
func belongs(log *keylog.Log, m meta) error {
	cp := log.Checkpoint()
	size := int64(m.Next)
	if size > cp.Size {
		return fmt.Errorf("%w: it is at entry %d, ahead of the log, which ends at %d", errUseless, size, cp.Size)
	}
	if size < 1 {
		return nil
	}
	root := tlog.Hash(m.Root)
	if size == cp.Size {
		if root != cp.Root {
			return fmt.Errorf("%w: it was made from another log", errUseless)
		}
		return nil
	}
	proof, err := log.ProveConsistency(size, cp.Size)
	if err != nil {
		return err
	}
	if tlog.CheckTree(proof, cp.Size, cp.Root, size, root) != nil {
		return fmt.Errorf("%w: it was made from another log", errUseless)
	}
	return nil
}

// retention is the least age at which the body of a use, session or access may be erased: a UTC day, for the daily counts, and clocks that differ.
const retention = 25 * time.Hour

// replay applies what the log has beyond the state.
func (l *Ledger) replay(ctx context.Context, log *keylog.Log) error {
	// A use, session or access whose body was erased is skipped: when its retention ended, nothing rests on it any more. One that is not older than
	// a day does carry a nonce or a count, and nobody may erase it.
	var erased *Record
	var newest time.Time
	o := newInOrder(decodeAll, func(e *entries) error {
		for i, r := range e.records {
			if newest = r.Time; len(e.raw[i].Body) == 0 && (r.Kind == evidence.EntryUse || r.Kind == evidence.EntrySession || r.Kind == evidence.EntryAccess) {
				erased = r
			}
			if err := l.state.Apply(r); err != nil {
				return err
			}
		}
		return nil
	})
	portion := new(entries)
	err := log.Replay(ctx, int64(l.state.next), func(p keylog.Position, raw keylog.Record) error {
		// The slices are the log's scratch; what the state keeps must be its own.
		portion.positions = append(portion.positions, p)
		portion.raw = append(portion.raw, keylog.Record{Entry: bytes.Clone(raw.Entry), Body: bytes.Clone(raw.Body)})
		if len(portion.raw) == entriesAtOnce {
			full := portion
			portion = new(entries)
			if !o.add(full) {
				return o.finish()
			}
		}
		return nil
	})
	if err == nil {
		o.add(portion)
	}
	if failed := o.finish(); failed != nil {
		err = failed
	}
	if index, taken := l.state.taken(); err == nil && taken {
		err = fmt.Errorf("entry %d: what the vault's state rests on was erased, and no closure of that account follows", index)
	}
	if err == nil && erased != nil && newest.Sub(erased.Time) < retention {
		err = fmt.Errorf("entry %d: the body of a %s was erased within %s of the newest entry, while nonces and daily counts rest on it", erased.Index, erased.Kind, retention)
	}
	if err != nil {
		return fmt.Errorf("making the ledger from the key-use log: %w", err)
	}
	cp := log.Checkpoint()
	if err := l.Flush(policies.Hash(cp.Root), uint64(cp.Size)); err != nil {
		l.index.log.Error("the vault's database was not written", "error", err.Error()) // it is an index, and its disk may be full
	}
	return nil
}

// entries are some of the log's, on their way into the state.
type entries struct {
	positions []keylog.Position
	raw       []keylog.Record
	records   []*Record
}

const entriesAtOnce = 64

func decodeAll(e *entries) error {
	e.records = make([]*Record, len(e.raw))
	for i := range e.raw {
		r, err := Decode(e.positions[i], e.raw[i])
		if err != nil {
			return err
		}
		e.records[i] = r
	}
	return nil
}

// Close lets go of the database. Flush before.
func (l *Ledger) Close() error {
	if l.index == nil {
		return nil
	}
	return l.index.close()
}
