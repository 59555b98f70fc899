// Package tiles publishes the key-use log as plain files: C2SP tlog-tiles and a checkpoint that the token and the vault's host signed.
//
// # What it is for
//
// The journal of package keylog is the vault's. What others verify is this: a folder, which a web server or a backup can carry away as it is.
//
//	checkpoint                     the newest published tree: lines of the token's key, of the host's, and of witnesses
//	witnessed/<N>                  older ones that witnesses cosigned, one an hour at most: they bound the times of entries
//	vault                          the vault document's envelope
//	tile/<L>/<N>[.p/<W>]           hash tiles
//	tile/entries/<N>[.p/<W>]       entry bundles: u16 length, then the log's leaf
//	bodies/<N>[.p/<W>]             what lies beside each entry: u32 length, then the body; 0xffffffff alone for one that was erased or never was
//
// Checkpoint, vault and hash tiles may be anybody's. Entries and bodies are for auditors: their files and folders are the vault's user's alone.
//
// # The normal path
//
// [New] makes a publisher, [Publisher.Run] publishes whenever the log has grown. A log that was never published is caught up with first.
//
// # What it refuses
//
// A publisher goes on from what is in the folder, and trusts none of it. The checkpoint there must be signed by both keys, and the hash tiles
// at the right edge must make its root. The new tree is made from those tiles and the log's newer entries: only if that is the root that
// the token signed, the log contains all that was published, and the host signs. Else [ErrInconsistent], and the published checkpoint stays
// for ever as it is. Of older tiles a publisher reads nothing: whoever changes them is found by whoever verifies them.
//
// # Crashes
//
// The checkpoint is replaced last, after everything under it is on disk. Whatever a crash leaves beside it lies beyond the published
// size and is written again. Partial tiles are removed when the full one is published; those that a crash leaves harm nobody.
//
// Bodies that the log has erased ([Config.Erased]) are erased here too: their files are replaced.
//
// Publishing is not on the way of a key use. If it fails or lags, [Publisher.Status] says so, and key use goes on.
//
// # Witnesses
//
// With [Config.Witnesses] a checkpoint is published only when Need of them have cosigned it. They are asked at once, each from the tree that it cosigned last. One that is
// away, slow, or answers something else is asked again after a pause that grows to a minute; while there are too few, what was published stays, and
// [ErrWitnesses] says why. A log that does not grow is cosigned again each hour, so that it is known when there was nothing more in it.
package tiles

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/keylog"
)

// Width is how many hashes a full tile has, and how many entries a full bundle.
const Width = 256

// Erased stands for the length of a body that is not there.
const Erased = 0xffffffff

// ErrInconsistent means that the log does not contain what was published. One of them was changed; nothing more is published.
var ErrInconsistent = errors.New("the log does not contain what was published")

// ErrNoSpace means that the disk of the folder has only the reserve left.
var ErrNoSpace = errors.New("no space left to publish but the reserve")

// Log is what is published.
type Log interface {
	Checkpoint() keylog.Checkpoint
	Replay(ctx context.Context, from int64, f func(keylog.Position, keylog.Record) error) error
	ProveConsistency(old, size int64) (tlog.TreeProof, error)
}

// Config says what is published and where.
type Config struct {
	Dir      string
	Log      Log
	Document *policies.VaultDocument
	Envelope []byte                // the vault document's, as it was signed
	Host     *evidence.CosignerKey // of the document's log_host_key
	Erased   func() uint64         // bodies of entries below this index are erased in the log; nil: none are
	// ErasedAccounts are, but for the first n, the entries of accounts that were closed and whose bodies are erased in the log; nil: there are none.
	ErasedAccounts func(n int) [][]uint64
	Reserve        int64 // free bytes below which nothing is written

	Witnesses []Witness // are asked for a cosignature of each checkpoint
	Need      int       // how many of them must have given it before it is published

	Now    func() time.Time // nil: the system's clock
	Logger *slog.Logger     // nil: silent

	fault func(step string) error // in tests: asked before each change of the folder
}

// Status is how far publication is.
type Status struct {
	Size int64     // entries under the published checkpoint
	At   time.Time // when it was published by this process, zero: not yet
	Err  error     // why the last try failed

	Witnesses []WitnessStatus
}

// Publisher writes the published form. One process has one for a folder.
type Publisher struct {
	cfg Config

	// Owned by Publish.
	tree      tree // what is written, which is more than what is published while witnesses are awaited
	published int64
	erased    int64   // below it, bodies here are as the log has them; -1: not known yet
	accounts  int     // how many of those that were closed are as the log has them
	edges     []int64 // sizes at which partial files were written since then
	loaded    bool
	dirty     []string // files written since the last sync
	cosigned  time.Time
	kept      time.Time // when the newest checkpoint was kept, and how many are
	keptCount int64

	witnesses []*asked

	mu     sync.Mutex
	status Status
}

// New makes a publisher and its folder. It reads nothing yet.
func New(cfg Config) (*Publisher, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if have, want := cfg.Host.Cosigner().String(), evidence.HostCosigner(cfg.Document).String(); have != want {
		return nil, errors.New("publishing: the host's key is not the one in the vault document")
	}
	rule := evidence.Witnesses{Need: cfg.Need}
	p := &Publisher{erased: -1}
	for _, w := range cfg.Witnesses {
		rule.Of = append(rule.Of, w.Key)
		p.witnesses = append(p.witnesses, &asked{Witness: w, status: WitnessStatus{Name: w.Key.Name}})
	}
	if err := rule.Validate(); err != nil {
		return nil, fmt.Errorf("publishing: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil { // #nosec G301 -- a web server may read it; what is not for everybody lies in folders of mode 0700 below
		return nil, fmt.Errorf("publishing: %w", err)
	}
	if cfg.fault == nil {
		cfg.fault = func(string) error { return nil }
	}
	p.cfg = cfg
	return p, nil
}

// Run publishes every interval until ctx ends. What is wrong is in [Publisher.Status], and in the log when it begins and when it ends.
func (p *Publisher) Run(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	ill := false
	for {
		err := p.Publish(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !ill:
			p.cfg.Logger.Error("the key-use log is not published", "error", err.Error())
		case err == nil && ill:
			p.cfg.Logger.Info("the key-use log is published again")
		}
		ill = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Status tells how far publication is.
func (p *Publisher) Status() Status {
	p.mu.Lock()
	s := p.status
	p.mu.Unlock()
	for _, w := range p.witnesses {
		s.Witnesses = append(s.Witnesses, w.report())
	}
	return s
}

// Publish brings the folder up to the log's newest checkpoint. One call at a time.
func (p *Publisher) Publish(ctx context.Context) error {
	err := p.publish(ctx)
	if p.loaded && (err == nil || errors.Is(err, ErrWitnesses)) {
		if failed := errors.Join(p.erase(ctx), p.eraseAccounts(ctx)); failed != nil {
			err = failed
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status.Err = err; err != nil && !errors.Is(err, ErrWitnesses) {
		p.loaded = false // what is in memory may be ahead of the folder
	}
	if p.loaded {
		p.status.Size = p.published
	}
	return err
}

func (p *Publisher) publish(ctx context.Context) error {
	if err := p.room(); err != nil {
		return err
	}
	if !p.loaded {
		if err := p.load(); err != nil {
			return err
		}
		p.loaded = true
	}
	taken := p.cfg.Now()
	cp := p.cfg.Log.Checkpoint()
	from := p.tree.size
	switch {
	case cp.Size == 0 && from == 0: // not begun
		return nil
	case cp.Size < from:
		return fmt.Errorf("%w: it has %d entries, %d were published", ErrInconsistent, cp.Size, from)
	case cp.Size == from && cp.Root != p.tree.root():
		return fmt.Errorf("%w: another tree of %d entries was published", ErrInconsistent, from)
	case cp.Size == p.published && !p.stale(taken):
		return nil
	case cp.Size > from:
		if err := p.extend(ctx, cp); err != nil {
			return err
		}
	}
	if err := p.checkpoint(ctx, cp, taken); err != nil {
		return err
	}
	for _, edge := range p.edges {
		p.sweep(edge, cp.Size)
	}
	p.published, p.edges = cp.Size, nil
	return nil
}

// stale tells whether witnesses should say again that the log has not grown.
func (p *Publisher) stale(now time.Time) bool {
	return len(p.witnesses) > 0 && now.Sub(p.cosigned).Abs() >= renewal
}

// extend has on disk all that is under a checkpoint.
func (p *Publisher) extend(ctx context.Context, cp keylog.Checkpoint) error {
	from := p.tree.size
	if err := p.entries(ctx, cp.Size); err != nil {
		return err
	}
	if cp.Root != p.tree.root() {
		return fmt.Errorf("%w: the published tree of %d entries does not grow into the log's of %d", ErrInconsistent, from, cp.Size)
	}
	if err := p.edge(from); err != nil {
		return err
	}
	p.edges = append(p.edges, from)
	return p.sync()
}

// room keeps the publisher from taking the disk that the journal needs.
func (p *Publisher) room() error {
	var s unix.Statfs_t
	if err := unix.Statfs(p.cfg.Dir, &s); err != nil {
		return fmt.Errorf("publishing: measuring free space: %w", err)
	}
	if free := int64(s.Bavail) * s.Bsize; free < p.cfg.Reserve {
		return fmt.Errorf("%w: %d bytes free, reserve is %d", ErrNoSpace, free, p.cfg.Reserve)
	}
	return nil
}

// load goes on from the folder: its checkpoint, under both signatures, and the tiles at the right edge, which must make its root.
func (p *Publisher) load() error {
	p.tree, p.dirty, p.published, p.edges = tree{}, nil, 0, nil
	if err := p.countKept(); err != nil {
		return err
	}
	if err := p.document(); err != nil {
		return err
	}
	text, err := os.ReadFile(p.path(checkpointName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("publishing: %w", err)
	}
	last, err := evidence.OpenPublished(string(text), p.cfg.Document, evidence.Witnesses{})
	if err != nil {
		return fmt.Errorf("publishing: the published checkpoint: %w", err)
	}
	if last.Size > 1<<48 {
		return fmt.Errorf("%w: %d entries were published", ErrInconsistent, last.Size)
	}
	p.tree.size, p.published = int64(last.Size), int64(last.Size)
	for level := 0; p.tree.size>>(8*level) > 0; level++ {
		count := p.tree.size >> (8 * level)
		n, w := count/Width, int(count%Width)
		var hashes []tlog.Hash
		if w > 0 {
			if hashes, err = p.readTile(level, n, w); err != nil {
				return fmt.Errorf("publishing: %w", err)
			}
		}
		p.tree.levels = append(p.tree.levels, hashes)
	}
	if policies.Hash(p.tree.root()) != last.Root {
		return fmt.Errorf("%w: the published tiles do not make the published root of %d entries", ErrInconsistent, last.Size)
	}
	return nil
}

func (p *Publisher) readTile(level int, n int64, w int) ([]tlog.Hash, error) {
	raw, err := os.ReadFile(p.path(TilePath(level, n, w)))
	if err != nil {
		return nil, err
	}
	if len(raw) != w*tlog.HashSize {
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrInconsistent, TilePath(level, n, w), len(raw))
	}
	hashes := make([]tlog.Hash, w)
	for i := range hashes {
		hashes[i] = tlog.Hash(raw[i*tlog.HashSize : (i+1)*tlog.HashSize])
	}
	return hashes, nil
}

// document puts the vault document into the folder.
func (p *Publisher) document() error {
	if have, err := os.ReadFile(p.path(vaultName)); err == nil && string(have) == string(p.cfg.Envelope) {
		return nil
	}
	return p.durable(vaultName, p.cfg.Envelope)
}

var errEnough = errors.New("enough")

// entries writes bundles, bodies and full hash tiles up to a size. It begins with the bundle that is not full, whose published hashes the log
// must have.
func (p *Publisher) entries(ctx context.Context, size int64) error {
	from := p.tree.size
	begin := from - from%Width
	var bundle, bodies []byte
	err := p.cfg.Log.Replay(ctx, begin, func(at keylog.Position, r keylog.Record) error {
		if at.Index >= size {
			return errEnough
		}
		leaf := keylog.Leaf(at.Time, r.Entry)
		if len(leaf) > 1<<16-1 {
			return fmt.Errorf("publishing: entry %d has %d bytes, a bundle takes 65,535", at.Index, len(leaf))
		}
		hash := tlog.RecordHash(leaf)
		if at.Index < from {
			if p.tree.levels[0][at.Index-begin] != hash {
				return fmt.Errorf("%w: entry %d is another", ErrInconsistent, at.Index)
			}
		} else if err := p.add(hash); err != nil {
			return err
		}
		bundle = append(binary.BigEndian.AppendUint16(bundle, uint16(len(leaf))), leaf...)
		bodies = appendBody(bodies, r.Body)
		if next := at.Index + 1; next%Width == 0 || next == size {
			n, w := at.Index/Width, int((next-1)%Width)+1
			if err := errors.Join(p.write(EntriesPath(n, w), bundle), p.write(BodiesPath(n, w), bodies)); err != nil {
				return err
			}
			bundle, bodies = bundle[:0], bodies[:0]
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	if err == nil && p.tree.size != size {
		err = fmt.Errorf("publishing: the log gave %d entries of %d", p.tree.size, size)
	}
	return err
}

// add adds a leaf to the tree and writes the tiles that it fills.
func (p *Publisher) add(h tlog.Hash) error {
	t := &p.tree
	t.size++
	for level := 0; ; level++ {
		if level == len(t.levels) {
			t.levels = append(t.levels, nil)
		}
		t.levels[level] = append(t.levels[level], h)
		if len(t.levels[level]) < Width {
			return nil
		}
		if err := p.write(TilePath(level, t.size>>(8*(level+1))-1, Width), tileBytes(t.levels[level])); err != nil {
			return err
		}
		h = treeHash(t.levels[level])
		t.levels[level] = t.levels[level][:0]
	}
}

// edge writes the partial tiles, but those that are published already.
func (p *Publisher) edge(from int64) error {
	for level, hashes := range p.tree.levels {
		count := p.tree.size >> (8 * level)
		if len(hashes) == 0 || count == from>>(8*level) {
			continue
		}
		if err := p.write(TilePath(level, count/Width, len(hashes)), tileBytes(hashes)); err != nil {
			return err
		}
	}
	return nil
}

// checkpoint has the host sign and the witnesses cosign, and replaces the published checkpoint.
func (p *Publisher) checkpoint(ctx context.Context, cp keylog.Checkpoint, taken time.Time) error {
	line, err := p.cfg.Host.Cosign(p.cfg.Document.LogKey.Name, evidence.Checkpoint{Size: uint64(cp.Size), Root: policies.Hash(cp.Root)}, p.cfg.Now())
	if err != nil {
		return fmt.Errorf("publishing: %w", err)
	}
	text := cp.Note + line
	cosignatures := ""
	if len(p.witnesses) > 0 {
		if cosignatures, err = p.cosign(ctx, cp, text, taken); err != nil {
			return fmt.Errorf("publishing: %w", err)
		}
		if cosignatures == "" && cp.Size == p.published { // asked again, and nobody answers: nobody is needed
			return nil
		}
		text += cosignatures
	}
	rule := evidence.Witnesses{Need: p.cfg.Need}
	for _, w := range p.witnesses {
		rule.Of = append(rule.Of, w.Key)
	}
	c, err := evidence.OpenPublished(text, p.cfg.Document, rule)
	if err == nil && (c.Size != uint64(cp.Size) || c.Root != policies.Hash(cp.Root)) {
		err = ErrInconsistent
	}
	if err != nil {
		return fmt.Errorf("publishing: the new checkpoint: %w", err)
	}
	if err := p.durable(checkpointName, []byte(text)); err != nil {
		return err
	}
	now := p.cfg.Now()
	p.mu.Lock()
	p.status.At = now
	p.mu.Unlock()
	if cosignatures == "" {
		return nil
	}
	p.cosigned = now
	return p.keep(text, now)
}

// keep keeps a checkpoint that witnesses cosigned, if the one before is an hour old. A crash before that loses it, and the next one is kept.
func (p *Publisher) keep(text string, now time.Time) error {
	if p.keptCount > 0 && now.Sub(p.kept).Abs() < keptNotes {
		return nil
	}
	if err := p.write(WitnessedPath(p.keptCount), []byte(text)); err != nil {
		return err
	}
	if err := p.sync(); err != nil {
		return err
	}
	p.kept, p.keptCount = now, p.keptCount+1
	return nil
}

// countKept finds out how many checkpoints are kept, and when the host signed the last one. One that does not open counts as old.
func (p *Publisher) countKept() error {
	there := func(n int64) (bool, error) {
		_, err := os.Lstat(p.path(WitnessedPath(n)))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	}
	low, high := int64(0), int64(1) // all below low are there, high is not
	for step := int64(1); ; step *= 2 {
		ok, err := there(step - 1)
		if err != nil {
			return fmt.Errorf("publishing: %w", err)
		}
		if high = step - 1; !ok {
			break
		}
		low = step
	}
	for low < high {
		middle := low + (high-low)/2
		ok, err := there(middle)
		if err != nil {
			return fmt.Errorf("publishing: %w", err)
		}
		if ok {
			low = middle + 1
		} else {
			high = middle
		}
	}
	p.keptCount, p.kept = low, time.Time{}
	if low > 0 {
		if text, err := os.ReadFile(p.path(WitnessedPath(low - 1))); err == nil {
			if last, err := evidence.OpenPublished(string(text), p.cfg.Document, evidence.Witnesses{}); err == nil {
				p.kept = last.Host
			}
		}
	}
	return nil
}

// sweep removes the partial files of what is full now. Only what was at the edge before can have any.
func (p *Publisher) sweep(from, size int64) {
	for level := 0; from>>(8*level) > 0; level++ {
		n := from >> (8 * level) / Width
		if size>>(8*level)/Width == n {
			continue
		}
		names := []string{TilePath(level, n, Width)}
		if level == 0 {
			names = append(names, EntriesPath(n, Width), BodiesPath(n, Width))
		}
		for _, name := range names {
			if p.cfg.fault("remove "+name) != nil {
				return
			}
			_ = os.RemoveAll(p.path(name) + ".p") // what stays harms nobody
		}
	}
}

// write gives a file its content in one step. It is on disk after the next sync.
func (p *Publisher) write(name string, content []byte) error {
	path := p.path(name)
	folder, file := access(name)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, file)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), folder); err != nil {
			return fmt.Errorf("publishing: %w", err)
		}
		f, err = os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, file)
	}
	if err != nil {
		return fmt.Errorf("publishing: %w", err)
	}
	if err = p.cfg.fault("write " + name); err == nil {
		_, err = f.Write(content)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = p.cfg.fault("rename " + name)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("publishing: %w", err)
	}
	p.dirty = append(p.dirty, path)
	return nil
}

// sync brings what was written to the disk: a few files one by one, many by their file system.
func (p *Publisher) sync() error {
	if err := p.cfg.fault("sync"); err != nil {
		return fmt.Errorf("publishing: syncing: %w", err)
	}
	if len(p.dirty) > 64 {
		if err := withFile(p.cfg.Dir, func(f *os.File) error { return unix.Syncfs(int(f.Fd())) }); err != nil {
			return fmt.Errorf("publishing: syncing: %w", err)
		}
		p.dirty = p.dirty[:0]
		return nil
	}
	done := map[string]bool{}
	for _, path := range p.dirty {
		// The file, and the folders up to the published one, any of which may be new.
		for ; !done[path] && len(path) >= len(p.cfg.Dir); path = filepath.Dir(path) {
			if err := withFile(path, (*os.File).Sync); err != nil {
				return fmt.Errorf("publishing: syncing: %w", err)
			}
			done[path] = true
		}
	}
	p.dirty = p.dirty[:0]
	return nil
}

// durable is write and sync of one file.
func (p *Publisher) durable(name string, content []byte) error {
	path := p.path(name) + ".new"
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o644) // #nosec G302 -- public: checkpoint, vault document, hash tiles
	if err != nil {
		return fmt.Errorf("publishing: %w", err)
	}
	if err = p.cfg.fault("write " + name); err == nil {
		_, err = f.Write(content)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = p.cfg.fault("rename " + name)
	}
	if err == nil {
		err = os.Rename(path, p.path(name))
	}
	if err == nil {
		err = withFile(p.cfg.Dir, (*os.File).Sync)
	}
	if err != nil {
		return fmt.Errorf("publishing: %w", err)
	}
	return nil
}

func withFile(path string, f func(*os.File) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f(file), file.Close())
}

func (p *Publisher) path(name string) string {
	return filepath.Join(p.cfg.Dir, filepath.FromSlash(name))
}

// tree is the right edge of the published tree: of each level, the hashes of the tile that is not full.
type tree struct {
	size   int64
	levels [][]tlog.Hash
}

// root is the tree's hash (RFC 6962, section 2.1).
func (t *tree) root() tlog.Hash {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	var below []tlog.Hash // the root of the levels below, which stands for fewer leaves than its neighbours
	for _, hashes := range t.levels {
		if all := append(hashes[:len(hashes):len(hashes)], below...); len(all) > 0 {
			below = []tlog.Hash{treeHash(all)}
		}
	}
	return below[0]
}

func treeHash(hashes []tlog.Hash) tlog.Hash {
	if len(hashes) == 1 {
		return hashes[0]
	}
	split := 1
	for split*2 < len(hashes) {
		split *= 2
	}
	return tlog.NodeHash(treeHash(hashes[:split]), treeHash(hashes[split:]))
}

func tileBytes(hashes []tlog.Hash) []byte {
	out := make([]byte, 0, len(hashes)*tlog.HashSize)
	for i := range hashes {
		out = append(out, hashes[i][:]...)
	}
	return out
}

// Names of the files of a published log, below its folder or URL.
const (
	checkpointName = "checkpoint"
	vaultName      = "vault"
)

// TilePath is the name of hash tile n of a level, with width hashes.
func TilePath(level int, n int64, width int) string {
	return "tile/" + strconv.Itoa(level) + "/" + number(n, width)
}

// EntriesPath is the name of entry bundle n.
func EntriesPath(n int64, width int) string { return "tile/entries/" + number(n, width) }

// BodiesPath is the name of the bodies beside entry bundle n.
func BodiesPath(n int64, width int) string { return "bodies/" + number(n, width) }

// WitnessedPath is the name of checkpoint n of those that are kept because witnesses cosigned them.
func WitnessedPath(n int64) string { return "witnessed/" + number(n, Width) }

// number is n as tlog-tiles writes it: three digits an element, an x before all but the last, such as x001/x234/067.
func number(n int64, width int) string {
	s := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		s = fmt.Sprintf("x%03d/%s", n%1000, s)
	}
	if width != Width {
		s += ".p/" + strconv.Itoa(width)
	}
	return s
}

// access is who may read a file and its folders.
func access(name string) (folder, file fs.FileMode) {
	if len(name) > 7 && name[:7] == "bodies/" || len(name) > 13 && name[:13] == "tile/entries/" {
		return 0o700, 0o600
	}
	return 0o755, 0o644
}
