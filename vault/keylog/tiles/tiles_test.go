package tiles

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"k8s.io/klog/v2"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/keylog"
)

const origin = "vault.test/log"

var (
	tokenKey = ed25519.NewKeyFromSeed(make([]byte, 32))
	begun    = time.UnixMilli(1_800_000_000_000).UTC()
)

func TestMain(m *testing.M) {
	klog.LogToStderr(false) // Tessera tells of each check
	klog.SetOutput(io.Discard)
	os.Exit(m.Run())
}

// memory is a log in memory, as long as it is asked to be: a million entries take no time to append.
type memory struct {
	size   int64
	erased int64          // bodies below are gone
	forks  map[int64]bool // entries that are others than they were
}

func (m *memory) record(i int64) (keylog.Position, keylog.Record) {
	r := keylog.Record{Entry: fmt.Appendf(nil, "entry %d", i), Body: fmt.Appendf(nil, "body %d", i)}
	if m.forks[i] {
		r.Entry = append(r.Entry, '!')
	}
	if i%5 == 4 || i < m.erased {
		r.Body = nil
	}
	return keylog.Position{Index: i, Time: begun.Add(time.Duration(i) * time.Millisecond)}, r
}

func (m *memory) Checkpoint() keylog.Checkpoint {
	// The tree's hash by the definition of RFC 6962, from complete subtrees, without package tiles.
	type node struct {
		hash  tlog.Hash
		width int64
	}
	var edge []node
	for i := range m.size {
		at, r := m.record(i)
		edge = append(edge, node{tlog.RecordHash(keylog.Leaf(at.Time, r.Entry)), 1})
		for n := len(edge); n > 1 && edge[n-2].width == edge[n-1].width; n = len(edge) {
			edge = append(edge[:n-2], node{tlog.NodeHash(edge[n-2].hash, edge[n-1].hash), 2 * edge[n-1].width})
		}
	}
	root := tlog.Hash(sha256.Sum256(nil))
	for i, e := range slices.Backward(edge) {
		if root = e.hash; i < len(edge)-1 {
			root = tlog.NodeHash(e.hash, edge[i+1].hash)
			edge[i].hash = root
		}
	}
	return keylog.Checkpoint{Size: m.size, Root: root, Note: signed(m.size, root)}
}

func signed(size int64, root tlog.Hash) string {
	key, err := note.NewEd25519VerifierKey(origin, tokenKey.Public().(ed25519.PublicKey))
	if err != nil {
		panic(err)
	}
	signer, err := note.NewSigner("PRIVATE+KEY+" + origin + "+" + strings.Split(key, "+")[1] + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, tokenKey.Seed()...)))
	if err != nil {
		panic(err)
	}
	text, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", origin, size, root)}, signer)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (m *memory) Replay(ctx context.Context, from int64, f func(keylog.Position, keylog.Record) error) error {
	for i := from; i < m.size; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f(m.record(i)); err != nil {
			return fmt.Errorf("replaying: %w", err)
		}
	}
	return nil
}

func (m *memory) ProveConsistency(old, size int64) (tlog.TreeProof, error) {
	var hashes stored
	for i := range size {
		at, r := m.record(i)
		h, err := tlog.StoredHashes(i, keylog.Leaf(at.Time, r.Entry), hashes)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, h...)
	}
	return tlog.ProveTree(size, old, hashes)
}

type stored []tlog.Hash

func (s stored) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = s[x]
	}
	return out, nil
}

func hostKey(t testing.TB) *evidence.CosignerKey {
	k, err := evidence.NewCosignerKey(origin+"/host", &[32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func document(t testing.TB) *policies.VaultDocument {
	return &policies.VaultDocument{LogKey: policies.LogKey{Name: origin, Algorithm: "Ed25519", PublicKey: tokenKey.Public().(ed25519.PublicKey)},
		LogHostKey: policies.LogKey{Name: origin + "/host", Algorithm: "ML-DSA-44", PublicKey: hostKey(t).Cosigner().PublicKey}}
}

func config(t testing.TB, dir string, log Log) Config {
	return Config{Dir: dir, Log: log, Document: document(t), Envelope: []byte(`{"vault":"document"}`), Host: hostKey(t)}
}

func publisher(t testing.TB, cfg Config) *Publisher {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// check has Tessera, code that nobody here wrote, verify the folder: checkpoint, every bundle, every tile. It returns the size.
func check(t testing.TB, dir string) int64 {
	t.Helper()
	key, err := note.NewEd25519VerifierKey(origin, tokenKey.Public().(ed25519.PublicKey))
	must(t, err)
	verifier, err := note.NewVerifier(key)
	must(t, err)
	fetcher := client.FileFetcher{Root: dir}
	hasher := func(raw []byte) ([][]byte, error) {
		var bundle api.EntryBundle
		if err := bundle.UnmarshalText(raw); err != nil {
			return nil, err
		}
		var out [][]byte
		for _, leaf := range bundle.Entries {
			out = append(out, rfc6962.DefaultHasher.HashLeaf(leaf))
		}
		return out, nil
	}
	must(t, fsck.New(origin, verifier, fetcher, hasher, fsck.Opts{N: 2}).Check(t.Context()))
	cp, raw, _, err := client.FetchCheckpoint(t.Context(), fetcher.ReadCheckpoint, verifier, origin)
	must(t, err)
	// The host's line too, with the independent client's own reading of the checkpoint: whoever wants both has both.
	host := hostKey(t).Cosigner()
	if _, err := evidence.OpenPublished(string(raw), document(t), evidence.Witnesses{}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), "\n\u2014 "+host.Name+" ") {
		t.Fatal("no line of the host")
	}
	return int64(cp.Size)
}

// bodies holds the bodies of the folder against the log's.
func checkBodies(t testing.TB, dir string, m *memory, size int64) {
	t.Helper()
	for n := int64(0); n*Width < size; n++ {
		w := int(min(size-n*Width, Width))
		raw, err := os.ReadFile(filepath.Join(dir, BodiesPath(n, w)))
		must(t, err)
		for i := n * Width; i < n*Width+int64(w); i++ {
			_, r := m.record(i)
			length := binary.BigEndian.Uint32(raw)
			raw = raw[4:]
			switch {
			case r.Body == nil && length == Erased:
			case r.Body == nil || int(length) > len(raw) || string(raw[:length]) != string(r.Body):
				t.Fatalf("the body of entry %d is another", i)
			default:
				raw = raw[length:]
			}
		}
		if len(raw) != 0 {
			t.Fatalf("%d bytes after the bodies of bundle %d", len(raw), n)
		}
	}
}

func TestPublish(t *testing.T) {
	dir := t.TempDir()
	m := &memory{}
	p := publisher(t, config(t, dir, m))
	must(t, p.Publish(t.Context()))
	if _, err := os.Stat(filepath.Join(dir, "checkpoint")); err == nil {
		t.Error("an empty log was published")
	}
	for i, size := range []int64{1, 2, 255, 256, 257, 511, 512, 513, 700, 70_000} {
		m.size = size
		if i%3 == 2 { // by the same process, or by another
			p = publisher(t, config(t, dir, m))
		}
		must(t, p.Publish(t.Context()))
		if got := check(t, dir); got != size || p.Status().Size != size {
			t.Errorf("%d entries are published, want %d", got, size)
		}
		checkBodies(t, dir, m, size)
	}
	before, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	must(t, err)
	must(t, p.Publish(t.Context()))
	after, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	must(t, err)
	if string(before) != string(after) {
		t.Error("signed again, though nothing was added")
	}
	for _, name := range []string{TilePath(0, 0, 255), EntriesPath(1, 255), BodiesPath(0, 2), TilePath(1, 0, 2)} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is still there, though the full one is", name)
		}
	}
	for _, c := range []struct {
		name string
		mode os.FileMode
	}{{"bodies", 0o700}, {"tile/entries", 0o700}, {EntriesPath(0, Width), 0o600}, {BodiesPath(0, Width), 0o600}, {"tile/0", 0o755}, {TilePath(0, 0, Width), 0o644}, {"checkpoint", 0o644}} {
		if info, err := os.Stat(filepath.Join(dir, c.name)); err != nil || info.Mode().Perm() != c.mode {
			t.Errorf("%s: %v, %v, want %v", c.name, info.Mode(), err, c.mode)
		}
	}
}

// A real log, with the token's part played by a key in memory.
func TestPublishKeylog(t *testing.T) {
	dir := t.TempDir()
	keeper := &keeper{}
	log, err := keylog.Create(t.Context(), keylog.Config{Dir: filepath.Join(dir, "log"), StateDir: filepath.Join(dir, "state"), Origin: origin,
		PublicKey: tokenKey.Public().(ed25519.PublicKey), Signer: keeper, State: keeper, Reserve: 1})
	must(t, err)
	defer log.Close()
	p := publisher(t, config(t, filepath.Join(dir, "published"), log))
	for size := int64(0); size < 600; {
		var records []keylog.Record
		for range 150 {
			records = append(records, keylog.Record{Entry: fmt.Appendf(nil, "entry %d", size), Body: []byte("body")})
			size++
		}
		_, _, err := log.Append(t.Context(), records...)
		must(t, err)
		must(t, p.Publish(t.Context()))
		if got := check(t, p.cfg.Dir); got != size {
			t.Errorf("%d entries are published, want %d", got, size)
		}
	}
}

type keeper struct{ value []byte }

func (k *keeper) Sign(_ context.Context, message []byte) ([]byte, error) {
	return ed25519.Sign(tokenKey, message), nil
}
func (k *keeper) Save(_ context.Context, state []byte) error {
	k.value = slices.Clone(state)
	return nil
}
func (k *keeper) Load(context.Context) ([]byte, error) { return k.value, nil }

// Many entries, with tiles of the third level, caught up with and verified by Tessera. (A million took 13 s to publish and 3 s to verify without -race.)
func TestCatchUp(t *testing.T) {
	size := int64(200_000)
	dir := t.TempDir()
	m := &memory{size: size}
	cp := m.Checkpoint()
	start := time.Now()
	must(t, publisher(t, config(t, dir, fixed{m, cp})).Publish(t.Context()))
	took := time.Since(start)
	start = time.Now()
	if got := check(t, dir); got != size {
		t.Errorf("%d entries are published", got)
	}
	t.Logf("%d entries published in %v, verified by Tessera in %v", size, took.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
}

// fixed spares the tests the making of a checkpoint again.
type fixed struct {
	*memory
	cp keylog.Checkpoint
}

func (f fixed) Checkpoint() keylog.Checkpoint { return f.cp }

// TestCrash ends the publisher before each of its steps, and goes on with another. The published log is whole at every moment.
func TestCrash(t *testing.T) {
	crash := errors.New("crash")
	for _, sizes := range [][2]int64{{1, 2}, {200, 300}, {256, 257}, {511, 1025}, {65_530, 65_540}} {
		m := &memory{size: sizes[0]}
		old := m.Checkpoint()
		m.size = sizes[1]
		next := m.Checkpoint()
		whole := t.TempDir()
		must(t, publisher(t, config(t, whole, fixed{&memory{size: sizes[0]}, old})).Publish(t.Context()))
		first, stride := 0, 1
		if sizes[0] > 10_000 { // every third, another third each time
			first, stride = rand.IntN(3), 3
		}
		for step := first; ; step += stride {
			dir := t.TempDir()
			must(t, os.CopyFS(dir, os.DirFS(whole)))
			steps := 0
			cfg := config(t, dir, fixed{m, next})
			cfg.fault = func(string) error {
				if steps++; steps > step {
					return crash
				}
				return nil
			}
			err := publisher(t, cfg).Publish(t.Context())
			if err == nil && steps <= step {
				t.Logf("%d to %d: %d steps", sizes[0], sizes[1], steps)
				break
			}
			if err != nil && !errors.Is(err, crash) {
				t.Fatal(err)
			}
			if got := check(t, dir); got != sizes[0] && got != sizes[1] {
				t.Fatalf("%d entries are published after a crash at step %d", got, step)
			}
			must(t, publisher(t, config(t, dir, fixed{m, next})).Publish(t.Context()))
			if got := check(t, dir); got != sizes[1] {
				t.Fatalf("%d entries are published after a crash at step %d and another start", got, step)
			}
			checkBodies(t, dir, m, sizes[1])
		}
	}
}

// TestInconsistent: what was published and what the log holds are two histories. Nothing is signed or replaced.
func TestInconsistent(t *testing.T) {
	const size = 700
	m := &memory{size: size}
	whole := t.TempDir()
	must(t, publisher(t, config(t, whole, m)).Publish(t.Context()))
	otherHost, err := evidence.NewCosignerKey(origin+"/host", &[32]byte{2})
	must(t, err)
	edit := func(name string, change func([]byte) []byte) func(string) {
		return func(dir string) {
			raw, err := os.ReadFile(filepath.Join(dir, name))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, name), change(raw), 0o600))
		}
	}
	flip := func(raw []byte) []byte { raw[len(raw)/2] ^= 1; return raw }
	tokenOnly := func(raw []byte) []byte { return []byte(signed(size, m.Checkpoint().Root)) }
	hostOther := func(raw []byte) []byte {
		line, err := otherHost.Cosign(origin, evidence.Checkpoint{Size: size, Root: policies.Hash(m.Checkpoint().Root)}, begun)
		must(t, err)
		return append(tokenOnly(nil), line...)
	}
	for _, c := range []struct {
		name string
		log  *memory
		edit func(dir string)
		want error
	}{
		{"the log is shorter", &memory{size: 699}, nil, ErrInconsistent},
		{"the log is empty", &memory{}, nil, ErrInconsistent},
		{"another first entry", &memory{size: 800, forks: map[int64]bool{0: true}}, nil, ErrInconsistent},
		{"another last entry", &memory{size: 800, forks: map[int64]bool{699: true}}, nil, ErrInconsistent},
		{"another last entry, of one size", &memory{size: size, forks: map[int64]bool{699: true}}, nil, ErrInconsistent},
		{"another first entry, of one size", &memory{size: size, forks: map[int64]bool{0: true}}, nil, ErrInconsistent},
		{"an edge tile of level 0 was changed", &memory{size: 800}, edit(TilePath(0, 2, 188), flip), ErrInconsistent},
		{"an edge tile of level 1 was changed", &memory{size: 800}, edit(TilePath(1, 0, 2), flip), ErrInconsistent},
		{"an edge tile was cut", &memory{size: 800}, edit(TilePath(0, 2, 188), func(b []byte) []byte { return b[1:] }), ErrInconsistent},
		{"an edge tile is gone", &memory{size: 800}, func(dir string) { must(t, os.Remove(filepath.Join(dir, TilePath(1, 0, 2)))) }, os.ErrNotExist},
		{"the checkpoint was changed", &memory{size: 800}, edit("checkpoint", flip), policies.ErrSignature},
		{"the checkpoint has no line of the host", &memory{size: 800}, edit("checkpoint", tokenOnly), policies.ErrSignature},
		{"the checkpoint has another host's line", &memory{size: 800}, edit("checkpoint", hostOther), policies.ErrSignature},
		{"the checkpoint is empty", &memory{size: 800}, edit("checkpoint", func([]byte) []byte { return nil }), policies.ErrSignature},
	} {
		dir := t.TempDir()
		must(t, os.CopyFS(dir, os.DirFS(whole)))
		if c.edit != nil {
			c.edit(dir)
		}
		before, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
		must(t, err)
		p := publisher(t, config(t, dir, c.log))
		for range 2 { // and stays so
			if err := p.Publish(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("%s: got %v, want %v", c.name, err, c.want)
			}
		}
		if p.Status().Err == nil {
			t.Errorf("%s: in good health", c.name)
		}
		if after, err := os.ReadFile(filepath.Join(dir, "checkpoint")); err != nil || string(after) != string(before) {
			t.Errorf("%s: the published checkpoint was replaced, %v", c.name, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	cfg := config(t, t.TempDir(), &memory{size: 3})
	cfg.Reserve = 1 << 62
	p := publisher(t, cfg)
	if err := p.Publish(t.Context()); !errors.Is(err, ErrNoSpace) {
		t.Errorf("on a full disk: %v", err)
	}
	cfg = config(t, t.TempDir(), &memory{})
	var err error
	if cfg.Host, err = evidence.NewCosignerKey(origin+"/host", &[32]byte{2}); err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg); err == nil {
		t.Error("a host's key that is not the published one is taken")
	}
}
