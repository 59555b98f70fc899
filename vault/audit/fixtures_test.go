package audit

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func filled(n int, with byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = with
	}
	return b
}

// vaultOf is a vault made by a seed: its document, and what signs its log.
type vaultOf struct {
	seed     byte
	doc      *policies.VaultDocument
	envelope []byte
	log      ed25519.PrivateKey
}

func newVault(seed byte) *vaultOf {
	ceremony := envelope.NewPrivateKey((*[64]byte)(filled(64, seed)))
	v := &vaultOf{seed: seed, log: ed25519.NewKeyFromSeed(filled(32, seed))}
	v.doc = &policies.VaultDocument{
		Header: policies.Header{Type: "vault", Suite: policies.Suite, ID: policies.DocumentID{seed}, Time: testTime.Unix()},
		Vault:  policies.VaultID{seed, 1}, Version: 1, CeremonyKey: ceremony.Public().Bytes(),
		Tokens: []policies.TokenEntry{{Serial: "token-1", Label: "token", Grade: "A", ImportKeys: []policies.ImportKey{
			{Custody: policies.CustodyResident, Path: "oaep-direct", OAEPHash: "SHA-1", PublicKey: filled(10, seed)},
		}}},
		LogKey:     policies.LogKey{Name: "vault.example/log", Algorithm: "Ed25519", PublicKey: v.log.Public().(ed25519.PublicKey)},
		LogHostKey: hostKey(seed),
		ImportHPKE: filled(policies.KEMPublicKeySize, 1), SessionKEM: filled(policies.KEMPublicKeySize, 2),
	}
	v.envelope = must(policies.Sign(ceremony, v.doc)).Raw
	return v
}

// host is the key of the vault's host, and hostKey its public half.
func host(seed byte) *evidence.CosignerKey {
	return must(evidence.NewCosignerKey("vault.example/host", (*[32]byte)(filled(32, seed))))
}

func hostKey(seed byte) policies.LogKey {
	c := host(seed).Cosigner()
	return policies.LogKey{Name: c.Name, Algorithm: "ML-DSA-44", PublicKey: c.PublicKey}
}

var testTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// testLog is a log in memory that can be published as files.
type testLog struct {
	*vaultOf
	leaves [][]byte
	bodies [][]byte
	hashes stored
}

type stored []tlog.Hash

func (s stored) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = s[x]
	}
	return out, nil
}

// newLog begins with a genesis.
func newLog(v *vaultOf) *testLog {
	l := &testLog{vaultOf: v}
	e := must(envelope.Parse(v.envelope))
	l.add(testTime, evidence.Entry{Kind: evidence.EntryGenesis}, &evidence.Details{Document: e.Hash}, v.envelope)
	return l
}

// add appends an entry and returns its index.
func (l *testLog) add(at time.Time, e evidence.Entry, d *evidence.Details, document []byte) uint64 {
	opening, commitment := evidence.Commit(d)
	e.Commitment = commitment
	body := evidence.Body{Opening: opening, Document: document}
	return l.put(at, e.Bytes(), body.Bytes())
}

func (l *testLog) put(at time.Time, entry, body []byte) uint64 {
	leaf := append(binary.BigEndian.AppendUint64(nil, uint64(at.UnixMilli())), entry...)
	index := len(l.leaves)
	l.hashes = append(l.hashes, must(tlog.StoredHashes(int64(index), leaf, l.hashes))...)
	l.leaves, l.bodies = append(l.leaves, leaf), append(l.bodies, body)
	return uint64(index)
}

// fill appends entries that say nothing much, a millisecond after the other, until there are n.
func (l *testLog) fill(n int) *testLog {
	for i := len(l.leaves); i < n; i++ {
		l.add(testTime.Add(time.Duration(i)*time.Millisecond), evidence.Entry{
			Kind: evidence.EntryRefusal, Reader: policies.Pseudonym{1, byte(i)}, Outcome: policies.CodeNoGrant,
		}, &evidence.Details{Field: "phone.mobile", Count: uint64(i)}, nil)
	}
	return l
}

// fork is another log that begins alike.
func (l *testLog) fork(size int) *testLog {
	o := &testLog{vaultOf: l.vaultOf}
	for i := range size {
		o.put(time.UnixMilli(int64(binary.BigEndian.Uint64(l.leaves[i]))), l.leaves[i][8:], l.bodies[i])
	}
	return o
}

func (l *testLog) root(size int) policies.Hash {
	return policies.Hash(must(tlog.TreeHash(int64(size), l.hashes)))
}

func (l *testLog) checkpoint(size int) string {
	return l.signed(uint64(size), l.root(size))
}

// signed is a checkpoint of both keys.
func (l *testLog) signed(size uint64, root policies.Hash) string {
	text := l.sign(fmt.Sprintf("%s\n%d\n%s\n", l.doc.LogKey.Name, size, base64.StdEncoding.EncodeToString(root[:])))
	return text + must(host(l.seed).Cosign(l.doc.LogKey.Name, evidence.Checkpoint{Size: size, Root: root}, testTime))
}

func (l *testLog) sign(text string) string {
	key := must(note.NewEd25519VerifierKey(l.doc.LogKey.Name, l.log.Public().(ed25519.PublicKey)))
	signer := must(note.NewSigner("PRIVATE+KEY+" + l.doc.LogKey.Name + "+" + strings.Split(key, "+")[1] + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, l.log.Seed()...))))
	return string(must(note.Sign(&note.Note{Text: text}, signer)))
}

// files are the published form, by name.
func (l *testLog) files() memory {
	files := memory{checkpointName: []byte(l.checkpoint(len(l.leaves))), vaultName: l.envelope}
	size := uint64(len(l.leaves))
	for level := 0; size>>(8*level) > 0; level++ {
		for n := int64(0); n*TileWidth < int64(size>>(8*level)); n++ {
			var data []byte
			width := tileWidth(size, level, n)
			for i := range width {
				h := l.hashes[tlog.StoredHashIndex(8*level, n*TileWidth+int64(i))]
				data = append(data, h[:]...)
			}
			files[TilePath(level, n, width)] = data
		}
	}
	for n := int64(0); n*TileWidth < int64(size); n++ {
		width := tileWidth(size, 0, n)
		var entries, bodies []byte
		for i := n * TileWidth; i < n*TileWidth+int64(width); i++ {
			entries = append(binary.BigEndian.AppendUint16(entries, uint16(len(l.leaves[i]))), l.leaves[i]...)
			if l.bodies[i] == nil {
				bodies = binary.BigEndian.AppendUint32(bodies, erasedBody)
			} else {
				bodies = append(binary.BigEndian.AppendUint32(bodies, uint32(len(l.bodies[i]))), l.bodies[i]...)
			}
		}
		files[EntriesPath(n, width)], files[BodiesPath(n, width)] = entries, bodies
	}
	return files
}

// memory is a published log by the names of its files.
type memory map[string][]byte

func (m memory) get(name string) ([]byte, error) {
	if data, ok := m[name]; ok {
		return data, nil
	}
	return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
}

func (m memory) Checkpoint(context.Context) ([]byte, error) { return m.get(checkpointName) }
func (m memory) Vault(context.Context) ([]byte, error)      { return m.get(vaultName) }
func (m memory) Tile(_ context.Context, level int, n int64, width int) ([]byte, error) {
	return m.get(TilePath(level, n, width))
}
func (m memory) Entries(_ context.Context, n int64, width int) ([]byte, error) {
	return m.get(EntriesPath(n, width))
}
func (m memory) Bodies(_ context.Context, n int64, width int) ([]byte, error) {
	return m.get(BodiesPath(n, width))
}

// write puts the files into a folder.
func (m memory) write(t testing.TB) Folder {
	t.Helper()
	dir := t.TempDir()
	for name, data := range m {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Folder(dir)
}

func (m memory) clone() memory {
	c := memory{}
	for name, data := range m {
		c[name] = append([]byte{}, data...)
	}
	return c
}

// opened is the log as an auditor opens it.
func (l *testLog) opened(t testing.TB, source Source) *Log {
	t.Helper()
	log, err := Open(t.Context(), source, l.doc)
	if err != nil {
		t.Fatal(err)
	}
	return log
}
