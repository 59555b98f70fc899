package audit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// A Query asks a vault, as one of its auditors, for a part of its log: "entries" as in bundles, or "bodies" as in bodies files, of count entries from an
// index on. The answer may have fewer, and has at least one.
type Query func(ctx context.Context, from, count uint64, what string) ([]byte, error)

// Mirror brings a folder up to the log: the published form, complete, with entries and bodies had by queries. vault is the vault document's envelope.
//
// Nothing that comes is believed: each body must be the one that its entry commits to, and the hash tiles are made from the entries, here, and must lead to the
// signed root. If the folder has an earlier checkpoint, the log must contain what it covers. The checkpoint is written last, after all else
// is on disk, so a mirror that was interrupted at any point goes on from there: what is whole is not asked for again. What the vault erases later stays in the
// folder. One process at a time.
//
// The log's Source gives the checkpoint, and hash tiles for the comparison with the earlier one; its entries and bodies are not asked for.
func (l *Log) Mirror(ctx context.Context, dir string, vault []byte, ask Query) error {
	m := &mirror{log: l, folder: Folder(dir), ask: ask, ahead: map[string]*answered{"entries": {}, "bodies": {}}}
	from, err := m.begin(ctx)
	if err != nil {
		return err
	}
	if err := m.witnessed(ctx); err != nil {
		return err
	}
	size := int64(l.Checkpoint.Size)
	if from == size && size > 0 {
		return nil
	}
	if err := m.write(vaultName, vault); err != nil {
		return err
	}
	for n := from / TileWidth; n*TileWidth < size; n++ {
		if err := m.bundle(ctx, n, from); err != nil {
			return err
		}
		if l.Progress != nil && n%16 == 15 {
			l.Progress(uint64(n+1)*TileWidth, l.Checkpoint.Size)
		}
	}
	if err := m.edge(); err != nil {
		return err
	}
	if size > 0 {
		mirrored := &Log{Source: m.folder, Document: l.Document, Checkpoint: l.Checkpoint}
		if _, err := mirrored.leaf(ctx, size-1); err != nil { // reads the right edge, which must lead to the root
			return err
		}
	}
	if err := m.write(checkpointName, []byte(l.Note)); err != nil {
		return err
	}
	m.sweep(from)
	return nil
}

// witnessed copies the checkpoints that witnesses cosigned and that the folder has not got. Token and host must have signed each; that it is a beginning of the
// log is for whoever knows the witnesses.
func (m *mirror) witnessed(ctx context.Context) error {
	s, ok := m.log.Source.(interface {
		Witnessed(ctx context.Context, n int64) ([]byte, error)
	})
	for n := int64(0); ok; n++ {
		if _, err := os.Lstat(filepath.Join(string(m.folder), filepath.FromSlash(WitnessedPath(n)))); err == nil {
			continue
		}
		text, err := s.Witnessed(ctx, n)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := evidence.OpenPublished(string(text), m.log.Document, evidence.Witnesses{}); err != nil {
			return &DamageError{File: WitnessedPath(n), Index: -1, Err: err}
		}
		if err := m.write(WitnessedPath(n), text); err != nil {
			return err
		}
	}
	return nil
}

type mirror struct {
	log    *Log
	folder Folder
	ask    Query
	size   int64                // entries in levels
	levels [][]tlog.Hash        // what does not fill a tile yet
	ahead  map[string]*answered // by what was asked for
}

// answered is what was had and not used yet, from an index on.
type answered struct {
	from   int64
	pieces [][]byte // nil: a body that was erased
}

// begin is how many entries the folder has, under a checkpoint that the log continues.
func (m *mirror) begin(ctx context.Context) (int64, error) {
	old, err := Open(ctx, m.folder, m.log.Document)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, os.MkdirAll(string(m.folder), 0o700)
	}
	if err != nil {
		return 0, err
	}
	if err := m.log.Consistent(ctx, old.Note); err != nil {
		return 0, err
	}
	m.size = int64(old.Checkpoint.Size)
	if m.size == 0 {
		return 0, nil
	}
	if _, err := old.leaf(ctx, m.size-1); err != nil {
		return 0, fmt.Errorf("the folder's own hash tiles: %w", err)
	}
	for level := 0; m.size>>(8*level) > 0; level++ {
		var hashes []tlog.Hash
		if count := m.size >> (8 * level); count%TileWidth > 0 {
			if hashes, _, err = old.tile(ctx, level, count/TileWidth, int(count%TileWidth)); err != nil {
				return 0, err
			}
		}
		m.levels = append(m.levels, hashes)
	}
	return m.size, nil
}

// bundle brings one bundle, its bodies and the tiles that it fills into the folder. from is how many entries were there at the beginning.
func (m *mirror) bundle(ctx context.Context, n, from int64) error {
	width := m.log.width(n)
	leaves, had, err := m.part(ctx, "entries", n, width)
	if err != nil {
		return err
	}
	bodies, hadBodies, err := m.part(ctx, "bodies", n, width)
	if err != nil {
		return err
	}
	for i, leaf := range leaves {
		index := n*TileWidth + int64(i)
		_, entry, err := evidence.ParseLogLeaf(leaf)
		if err != nil {
			return damage(EntriesPath(n, width), index, "%w", err)
		}
		if err := opens(bodies[i], &entry); err != nil {
			return damage(BodiesPath(n, width), index, "%w", err)
		}
		hash := leafHash(leaf)
		if index < from {
			if m.levels[0][i] != hash {
				return damage(EntriesPath(n, width), index, "it is another entry than the one that was mirrored before")
			}
			continue
		}
		if err := m.add(hash); err != nil {
			return err
		}
	}
	if !had {
		if err := m.write(EntriesPath(n, width), join("entries", leaves)); err != nil {
			return err
		}
	}
	if !hadBodies {
		return m.write(BodiesPath(n, width), join("bodies", bodies))
	}
	return nil
}

// opens checks that a body is the one that an entry commits to.
func opens(raw []byte, entry *evidence.Entry) error {
	if raw == nil {
		return nil
	}
	body, err := parseBody(raw)
	if err != nil {
		return err
	}
	opening := evidence.Opening{Salt: policies.Nonce(body.salt), Details: body.details}
	if opening.Commitment() != entry.Commitment {
		return errors.New("the body is not the one that the entry commits to")
	}
	return nil
}

// part is what a bundle or its bodies have: from the folder, if a whole one is there, else asked for.
func (m *mirror) part(ctx context.Context, what string, n int64, width int) (pieces [][]byte, had bool, err error) {
	if width == TileWidth {
		read, parse := m.folder.Entries, parseBundle
		if what == "bodies" {
			read, parse = m.folder.Bodies, parseBodies
		}
		if data, err := read(ctx, n, width); err == nil {
			if pieces, _, err := parse(data, width); err == nil { // else a power cut left it so
				return pieces, true, nil
			}
		}
	}
	a, at := m.ahead[what], n*TileWidth
	if a.from != at {
		a.from, a.pieces = at, nil
	}
	for len(a.pieces) < width {
		next := uint64(at) + uint64(len(a.pieces))
		count := min(uint64(policies.MaxQueryEntries), m.log.Checkpoint.Size-next)
		answer, err := m.ask(ctx, next, count, what)
		if err != nil {
			return nil, false, fmt.Errorf("asking for %s from entry %d on: %w", what, next, err)
		}
		got, err := split(what, answer)
		if err == nil && (len(got) == 0 || uint64(len(got)) > count) {
			err = fmt.Errorf("%d were asked for, %d came", count, len(got))
		}
		if err != nil {
			return nil, false, damage("the vault's answer", int64(next), "%s: %w", what, err)
		}
		a.pieces = append(a.pieces, got...)
	}
	pieces = a.pieces[:width]
	a.from, a.pieces = at+int64(width), a.pieces[width:]
	return pieces, false, nil
}

// split takes an answer apart, which has as many pieces as it has.
func split(what string, answer []byte) (pieces [][]byte, err error) {
	head := 2
	if what == "bodies" {
		head = 4
	}
	for len(answer) > 0 {
		if len(answer) < head {
			return nil, errors.New("the answer is cut short")
		}
		n := uint64(binary.BigEndian.Uint16(answer))
		if what == "bodies" {
			n = uint64(binary.BigEndian.Uint32(answer))
		}
		if answer = answer[head:]; what == "bodies" && n == erasedBody {
			pieces = append(pieces, nil)
			continue
		}
		if n > uint64(len(answer)) {
			return nil, errors.New("the answer is cut short")
		}
		pieces, answer = append(pieces, answer[:n:n]), answer[n:]
	}
	return pieces, nil
}

// join is the inverse of split.
func join(what string, pieces [][]byte) (out []byte) {
	for _, p := range pieces {
		switch {
		case what == "entries":
			out = binary.BigEndian.AppendUint16(out, uint16(len(p)))
		case p == nil:
			out = binary.BigEndian.AppendUint32(out, erasedBody)
		default:
			out = binary.BigEndian.AppendUint32(out, uint32(len(p)))
		}
		out = append(out, p...)
	}
	return out
}

// add adds a leaf to the tree and writes the tiles that it fills.
func (m *mirror) add(h tlog.Hash) error {
	m.size++
	for level := 0; ; level++ {
		if level == len(m.levels) {
			m.levels = append(m.levels, nil)
		}
		m.levels[level] = append(m.levels[level], h)
		if len(m.levels[level]) < TileWidth {
			return nil
		}
		if err := m.write(TilePath(level, m.size>>(8*(level+1))-1, TileWidth), tileOf(m.levels[level])); err != nil {
			return err
		}
		full := m.levels[level]
		for len(full) > 1 {
			for i := range len(full) / 2 {
				full[i] = tlog.NodeHash(full[2*i], full[2*i+1])
			}
			full = full[:len(full)/2]
		}
		h, m.levels[level] = full[0], m.levels[level][:0]
	}
}

// edge writes the partial tiles.
func (m *mirror) edge() error {
	for level, hashes := range m.levels {
		if len(hashes) == 0 {
			continue
		}
		if err := m.write(TilePath(level, m.size>>(8*level)/TileWidth, len(hashes)), tileOf(hashes)); err != nil {
			return err
		}
	}
	return nil
}

func tileOf(hashes []tlog.Hash) []byte {
	out := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		out = append(out, h[:]...)
	}
	return out
}

// sweep removes the partial files of what is full now.
func (m *mirror) sweep(from int64) {
	for level := 0; from>>(8*level) > 0; level++ {
		n := from >> (8 * level) / TileWidth
		if m.size>>(8*level)/TileWidth == n {
			continue
		}
		names := []string{TilePath(level, n, TileWidth)}
		if level == 0 {
			names = append(names, EntriesPath(n, TileWidth), BodiesPath(n, TileWidth))
		}
		for _, name := range names {
			_ = os.RemoveAll(filepath.Join(string(m.folder), filepath.FromSlash(name)) + ".p") // what stays harms nobody
		}
	}
}

// write gives a file its content in one step, durably. It is for the auditor's eyes alone.
func (m *mirror) write(name string, content []byte) error {
	path := filepath.Join(string(m.folder), filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(content); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
