package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"runtime"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
)

// Log is a published log whose checkpoint was verified. Its methods may be called at once from several goroutines if the Source allows it.
type Log struct {
	Source   Source
	Document *policies.VaultDocument
	// Checkpoint is the state that everything is held against; Note is its text.
	Checkpoint evidence.Checkpoint
	Note       string
	// Witnesses are those that the checkpoint was opened under, and Cosigned the ones of them that signed it.
	Witnesses evidence.Witnesses
	Cosigned  []evidence.Cosigned
	// Progress, if set, is called now and then by Verify and what else goes over the whole log, with how many entries are done.
	Progress func(done, of uint64)
}

// Open reads the source's checkpoint and verifies the lines of both log keys of a vault document: the token's, and the host's, which is post-quantum.
func Open(ctx context.Context, source Source, document *policies.VaultDocument) (*Log, error) {
	return OpenWitnessed(ctx, source, document, evidence.Witnesses{})
}

// OpenWitnessed is [Open] for who demands that witnesses cosigned the checkpoint. [Log.Verify] and [Log.Recheck] then hold the log against the older ones too that
// lie beside it, and their times bound those of entries.
func OpenWitnessed(ctx context.Context, source Source, document *policies.VaultDocument, w evidence.Witnesses) (*Log, error) {
	text, err := source.Checkpoint(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the checkpoint: %w", err)
	}
	p, err := evidence.OpenPublished(string(text), document, w)
	if err != nil {
		return nil, &DamageError{File: checkpointName, Index: -1, Err: err}
	}
	if p.Size > 1<<50 {
		return nil, damage(checkpointName, -1, "a log of %d entries", p.Size)
	}
	return &Log{Source: source, Document: document, Checkpoint: p.Checkpoint, Note: string(text), Witnesses: w, Cosigned: p.Witnesses}, nil
}

// OpenDocument reads the vault document that lies beside a log, if the source has one, and verifies that it is signed by the ceremony key that it
// names. Nothing says whose that key is: compare policies.HashKey of it with the link that the vault's ceremony printed.
func OpenDocument(ctx context.Context, source Source) (*policies.VaultDocument, error) {
	s, ok := source.(interface {
		Vault(ctx context.Context) ([]byte, error)
	})
	if !ok {
		return nil, fmt.Errorf("the source has no vault document: %w", fs.ErrNotExist)
	}
	raw, err := s.Vault(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the vault document: %w", err)
	}
	document, err := ParseDocument(raw)
	if err != nil {
		return nil, &DamageError{File: "vault", Index: -1, Last: -1, Err: err}
	}
	return document, nil
}

// ParseDocument is [OpenDocument] for bytes that the caller has.
func ParseDocument(raw []byte) (*policies.VaultDocument, error) {
	e, err := envelope.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("vault document: %w", err)
	}
	claim, err := policies.Decode[policies.VaultDocument](e)
	if err != nil {
		return nil, fmt.Errorf("vault document: %w", err)
	}
	return policies.OpenVault(e, claim.Vault, policies.HashKey(claim.CeremonyKey), 0)
}

// Record is one entry of the log with what lies beside it. Its slices are not used again.
type Record struct {
	Index uint64
	Time  time.Time
	Entry evidence.Entry
	Leaf  []byte // what the tree hashes
	// Opening is nil if the body was erased, or, with Absent, if the source has no bodies for this part of the log.
	Opening  *evidence.Opening
	Absent   bool
	Document []byte // the signed document that lies beside the entry, or nothing

	beside string // the file of the body
}

// Details are what the entry commits to. It is called with an Opening.
func (r *Record) Details() (*evidence.Details, error) {
	d, err := r.Opening.Read()
	if err != nil {
		return nil, damage(r.beside, int64(r.Index), "%w", err)
	}
	return d, nil
}

// Records are the entries from an index up to, and without, another, in their order; to beyond the end of the log is its end. Form and
// commitments are checked, hashes are not: that is for [Log.Verify] and [Log.Proven]. After an error there is nothing more.
func (l *Log) Records(ctx context.Context, from, to uint64) iter.Seq2[*Record, error] {
	return l.records(ctx, from, to, l.bundle)
}

func (l *Log) records(ctx context.Context, from, to uint64, read func(context.Context, int64) (*bundle, error)) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		if to = min(to, l.Checkpoint.Size); from >= to {
			return
		}
		stopped := errors.New("stopped")
		err := inOrder(ctx, int64(from)/TileWidth, int64(to-1)/TileWidth, read, func(b *bundle) error {
			for i := range b.whole {
				if r := &b.records[i]; r.Index >= from && r.Index < to && !yield(r, nil) {
					return stopped
				}
			}
			if b.damaged != nil && uint64(b.damaged.Index) < to {
				return b.damaged
			}
			return nil
		})
		if err != nil && !errors.Is(err, stopped) {
			yield(nil, err)
		}
	}
}

// bundle is a run of up to 256 entries. If one of them is not well formed, damaged says so, and only the first records are whole.
type bundle struct {
	n       int64
	records []Record
	whole   int
	damaged *DamageError
}

// width is how many entries bundle n has, or how many hashes tile n of level 0.
func (l *Log) width(n int64) int { return tileWidth(l.Checkpoint.Size, 0, n) }

// tileWidth is how many hashes a tile of a tree has.
func tileWidth(size uint64, level int, n int64) int {
	return int(min(int64(size>>(8*level))-n*TileWidth, TileWidth))
}

// fetch reads a file of a width. Once there is a full one, partial ones may be gone: then the full one is read, and cut by the caller.
func fetch(width int, read func(width int) ([]byte, error)) ([]byte, int, error) {
	data, err := read(width)
	if err != nil && width < TileWidth && errors.Is(err, fs.ErrNotExist) {
		if full, again := read(TileWidth); again == nil {
			return full, TileWidth, nil
		}
	}
	return data, width, err
}

// bundle reads and parses bundle n with its bodies. It returns an error if the source has not got it.
func (l *Log) bundle(ctx context.Context, n int64) (*bundle, error) {
	width := l.width(n)
	b := &bundle{n: n, records: make([]Record, width)}
	for i := range b.records {
		b.records[i].Index = uint64(n)*TileWidth + uint64(i)
	}
	data, got, err := fetch(width, func(w int) ([]byte, error) { return l.Source.Entries(ctx, n, w) })
	if err != nil {
		return nil, fmt.Errorf("reading entries %d to %d: %w", n*TileWidth, n*TileWidth+int64(width)-1, err)
	}
	file := EntriesPath(n, got)
	leaves, place, err := parseBundle(data, got)
	if err != nil {
		b.fail(file, place, err)
		return b, nil
	}
	data, got, err = fetch(width, func(w int) ([]byte, error) { return l.Source.Bodies(ctx, n, w) })
	absent := errors.Is(err, fs.ErrNotExist)
	var bodies [][]byte
	bodiesFile := BodiesPath(n, got)
	switch {
	case err != nil && !absent:
		return nil, fmt.Errorf("reading bodies %d to %d: %w", n*TileWidth, n*TileWidth+int64(width)-1, err)
	case !absent:
		if bodies, place, err = parseBodies(data, got); err != nil {
			b.fail(bodiesFile, place, err)
			return b, nil
		}
	}
	for i := range b.records {
		r := &b.records[i]
		b.whole, r.Leaf, r.Absent, r.beside = i, leaves[i], absent, bodiesFile
		if r.Time, r.Entry, err = evidence.ParseLogLeaf(r.Leaf); err != nil {
			b.fail(file, i, err)
			return b, nil
		}
		if i > 0 && r.Time.Before(b.records[i-1].Time) {
			b.fail(file, i, backwards(r.Time, b.records[i-1].Time))
			return b, nil
		}
		if absent || bodies[i] == nil {
			continue
		}
		body, err := parseBody(bodies[i])
		if err != nil {
			b.fail(bodiesFile, i, err)
			return b, nil
		}
		r.Opening, r.Document = &evidence.Opening{Salt: policies.Nonce(body.salt), Details: body.details}, body.document
		if r.Opening.Commitment() != r.Entry.Commitment {
			b.fail(bodiesFile, i, errors.New("the body is not the one that the entry commits to"))
			return b, nil
		}
	}
	b.whole = len(b.records)
	return b, nil
}

func (b *bundle) fail(file string, place int, err error) {
	index := b.n*TileWidth + int64(place)
	b.damaged = &DamageError{File: file, Index: index, Last: index, Err: err}
}

func backwards(at, before time.Time) error {
	return fmt.Errorf("its time, %s, is before that of the entry before, %s", at.Format(timeFormat), before.Format(timeFormat))
}

// timeFormat is how times are written: UTC, to the millisecond, as the log has them.
const timeFormat = "2006-01-02T15:04:05.000Z"

// tile reads a hash tile.
func (l *Log) tile(ctx context.Context, level int, n int64, width int) ([]tlog.Hash, string, error) {
	data, got, err := fetch(width, func(w int) ([]byte, error) { return l.Source.Tile(ctx, level, n, w) })
	if err != nil {
		return nil, "", fmt.Errorf("reading hash tile %s: %w", TilePath(level, n, width), err)
	}
	name := TilePath(level, n, got)
	if len(data) != got*tlog.HashSize {
		return nil, name, damage(name, -1, "a tile of %d hashes has %d bytes, this has %d", got, got*tlog.HashSize, len(data))
	}
	hashes := make([]tlog.Hash, width)
	for i := range hashes {
		hashes[i] = tlog.Hash(data[i*tlog.HashSize:])
	}
	return hashes, name, nil
}

// inOrder calls work for first to last on all processors, and use on what it returns, in their order. The first error of either ends it.
func inOrder[T any](ctx context.Context, first, last int64, work func(context.Context, int64) (T, error), use func(T) error) error {
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		value T
		err   error
	}
	processors := runtime.GOMAXPROCS(0)
	order, free := make(chan chan result, 2*processors), make(chan struct{}, processors)
	go func() {
		defer close(order)
		for n := first; n <= last; n++ {
			done := make(chan result, 1)
			select {
			case free <- struct{}{}:
			case <-ctx.Done():
				return
			}
			go func() {
				defer func() { <-free }()
				value, err := work(ctx, n)
				done <- result{value, err}
			}()
			select {
			case order <- done:
			case <-ctx.Done():
				<-done
				return
			}
		}
	}()
	defer func() { // nothing stays behind
		cancel()
		for done := range order {
			<-done
		}
	}()
	for done := range order {
		r := <-done
		if r.err != nil {
			return r.err
		}
		if err := use(r.value); err != nil {
			return err
		}
	}
	return ctx.Err()
}
