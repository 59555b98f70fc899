package views

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/audit"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var start = time.Date(2026, 3, 1, 23, 40, 0, 0, time.UTC)

// testLog is a published log in memory.
type testLog struct {
	key    ed25519.PrivateKey
	doc    *policies.VaultDocument
	host   *evidence.CosignerKey
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

func newLog() *testLog {
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	host := must(evidence.NewCosignerKey("vault.example/host", &[32]byte{1}))
	return &testLog{key: key, host: host, doc: &policies.VaultDocument{
		LogKey:     policies.LogKey{Name: "vault.example/log", Algorithm: "Ed25519", PublicKey: key.Public().(ed25519.PublicKey)},
		LogHostKey: policies.LogKey{Name: host.Cosigner().Name, Algorithm: "ML-DSA-44", PublicKey: host.Cosigner().PublicKey},
	}}
}

func (l *testLog) add(at time.Time, e evidence.Entry, d evidence.Details, document []byte) {
	opening, commitment := evidence.Commit(&d)
	e.Commitment = commitment
	body := evidence.Body{Opening: opening, Document: document}
	leaf := append(binary.BigEndian.AppendUint64(nil, uint64(at.UnixMilli())), e.Bytes()...)
	l.hashes = append(l.hashes, must(tlog.StoredHashes(int64(len(l.leaves)), leaf, l.hashes))...)
	l.leaves, l.bodies = append(l.leaves, leaf), append(l.bodies, body.Bytes())
}

func (l *testLog) Checkpoint(context.Context) ([]byte, error) {
	name := l.doc.LogKey.Name
	root := must(tlog.TreeHash(int64(len(l.leaves)), l.hashes))
	verifier := must(note.NewEd25519VerifierKey(name, l.doc.LogKey.PublicKey))
	signer := must(note.NewSigner("PRIVATE+KEY+" + name + "+" + strings.Split(verifier, "+")[1] + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, l.key.Seed()...))))
	text := must(note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", name, len(l.leaves), base64.StdEncoding.EncodeToString(root[:]))}, signer))
	line := must(l.host.Cosign(name, evidence.Checkpoint{Size: uint64(len(l.leaves)), Root: policies.Hash(root)}, time.Unix(1, 0)))
	return append(text, line...), nil
}

func (l *testLog) Tile(_ context.Context, level int, n int64, width int) ([]byte, error) {
	var out []byte
	for i := range int64(width) {
		at := tlog.StoredHashIndex(8*level, n*audit.TileWidth+i)
		if at >= int64(len(l.hashes)) {
			return nil, fs.ErrNotExist
		}
		out = append(out, l.hashes[at][:]...)
	}
	return out, nil
}

func (l *testLog) Entries(_ context.Context, n int64, width int) ([]byte, error) {
	var out []byte
	for _, leaf := range l.part(l.leaves, n, width) {
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(leaf))), leaf...)
	}
	return out, nil
}

func (l *testLog) Bodies(_ context.Context, n int64, width int) ([]byte, error) {
	var out []byte
	for _, body := range l.part(l.bodies, n, width) {
		if body == nil {
			out = binary.BigEndian.AppendUint32(out, 1<<32-1)
			continue
		}
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(body))), body...)
	}
	return out, nil
}

func (l *testLog) part(all [][]byte, n int64, width int) [][]byte {
	return all[n*audit.TileWidth : n*audit.TileWidth+int64(width)]
}

func (l *testLog) open(t testing.TB) *audit.Log {
	t.Helper()
	log, err := audit.Open(t.Context(), l, l.doc)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// world is some owners and readers, and what they did.
type world struct {
	*testLog
	owners, readers []Party
}

// populate makes a log in which everything happens, at random but always the same.
func populate(n int) *world { return populateAs(n, "Firm") }

// populateAs is populate with firms of another name.
func populateAs(n int, name string) *world {
	w := &world{testLog: newLog()}
	r := rand.New(rand.NewPCG(1, 2))
	at := start
	w.add(at, evidence.Entry{Kind: evidence.EntryGenesis}, evidence.Details{}, nil)
	var seed [64]byte
	signing := envelope.NewPrivateKey(&seed)
	for i := range 8 {
		id := policies.Identity{
			Header: policies.NewHeader("identity", at), Kind: policies.KindPerson, SigningKey: signing.Public().Bytes(),
			KEMKey: make([]byte, policies.KEMPublicKeySize), LoginKey: make([]byte, policies.KEMPublicKeySize), RecoveryHash: policies.Hash{1},
		}
		id.KEMKey[0], id.LoginKey[0] = 1, 2
		if i%2 == 1 {
			id.Kind, id.Name = policies.KindBusiness, fmt.Sprintf("%s %d", name, i)
		}
		e := must(policies.Sign(signing, &id))
		p := Party{Pseudonym: policies.Pseudonym{1, byte(i)}, ID: policies.IdentityID(e.Hash), Kind: string(id.Kind), Name: id.Name}
		w.add(at, evidence.Entry{Kind: evidence.EntryIdentity, Owner: p.Pseudonym, Outcome: policies.CodeAccepted}, evidence.Details{Document: e.Hash, Pseudo: p.Pseudonym}, e.Raw)
		if i%2 == 1 {
			w.readers = append(w.readers, p)
		} else {
			w.owners = append(w.owners, p)
		}
	}
	for i, b := range w.readers {
		w.add(at, evidence.Entry{Kind: evidence.EntryImport, Owner: w.owners[0].Pseudonym, Reader: b.Pseudonym}, evidence.Details{Grant: grantTo(i)}, nil)
	}
	for len(w.leaves) < n {
		at = at.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
		o, b := w.owners[r.IntN(len(w.owners))], w.readers[r.IntN(len(w.readers))]
		d := evidence.Details{Owner: policies.OwnerID(o.ID), Reader: policies.ReaderID(b.ID), Field: []policies.Field{"phone.mobile", "iban", "name"}[r.IntN(3)]}
		switch r.IntN(10) {
		case 0:
			w.add(at, evidence.Entry{Kind: evidence.EntryRefusal, Reader: b.Pseudonym, Outcome: policies.CodeNoGrant}, d, nil) // a stranger's
		case 1:
			d.Field, d.Reader = "", policies.ReaderID{}
			d.Items = []policies.RevokedItem{{Field: "iban", Grant: grantTo(r.IntN(len(w.readers)))}, {Field: "name", Grant: grantTo(r.IntN(len(w.readers)))}, {Field: "iban", Grant: policies.DocumentID{99}}}
			w.add(at, evidence.Entry{Kind: evidence.EntryDestroyed, Owner: o.Pseudonym, Outcome: policies.CodeAccepted}, d, nil)
		case 2:
			w.add(at, evidence.Entry{Kind: evidence.EntryRefusal, Owner: o.Pseudonym, Reader: b.Pseudonym, Outcome: policies.CodeRevoked}, d, nil)
		default:
			w.add(at, evidence.Entry{Kind: evidence.EntryUse, Owner: o.Pseudonym, Reader: b.Pseudonym, Outcome: policies.CodeReleased}, d, nil)
			if r.IntN(20) == 0 {
				w.bodies[len(w.bodies)-1] = nil // erased
			}
		}
	}
	return w
}

// grantTo is the id of the grant that lets a reader read.
func grantTo(reader int) policies.DocumentID { return policies.DocumentID{7, byte(reader)} }

func openIndex(t testing.TB, dir string) *Index {
	t.Helper()
	x, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

// slow answers a query by reading the whole log, entry by entry.
func (w *world) slow(t *testing.T, q Query) (found []uint64) {
	t.Helper()
	for r, err := range w.open(t).Records(t.Context(), 0, 1<<40) {
		if err != nil {
			t.Fatal(err)
		}
		d := new(evidence.Details)
		if r.Opening != nil {
			d = must(r.Details())
		}
		owner := r.Entry.Owner
		for _, o := range w.owners {
			if owner.IsZero() && policies.OwnerID(o.ID) == d.Owner {
				owner = o.Pseudonym
			}
		}
		reads := []policies.Pseudonym{r.Entry.Reader}
		for _, item := range d.Items {
			if item.Grant[0] == 7 {
				reads = append(reads, w.readers[item.Grant[1]].Pseudonym)
			}
		}
		switch {
		case !q.Owner.IsZero() && q.Owner != owner, !q.Reader.IsZero() && !slices.Contains(reads, q.Reader),
			q.Field != "" && q.Field != d.Field && !slices.ContainsFunc(d.Items, func(i policies.RevokedItem) bool { return i.Field == q.Field }),
			len(q.Kinds) > 0 && !slices.Contains(q.Kinds, r.Entry.Kind), len(q.Outcomes) > 0 && !slices.Contains(q.Outcomes, r.Entry.Outcome),
			!q.From.IsZero() && r.Time.Before(q.From), !q.To.IsZero() && !r.Time.Before(q.To), q.Before > 0 && r.Index >= q.Before:
			continue
		}
		found = append(found, r.Index)
	}
	slices.Reverse(found)
	return found
}

// TestSearch holds random queries against a reading of the whole log, in blocks that are full and not.
func TestSearch(t *testing.T) {
	w := populate(2000)
	x := openIndex(t, t.TempDir())
	if added, anew, err := x.Update(t.Context(), w.open(t)); err != nil || added != 2000 || anew != 0 {
		t.Fatal(added, anew, err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	hits := 0
	for range 100 {
		var q Query
		if r.IntN(2) == 0 {
			q.Owner = w.owners[r.IntN(len(w.owners))].Pseudonym
		}
		if r.IntN(2) == 0 {
			q.Reader = w.readers[r.IntN(len(w.readers))].Pseudonym
		}
		if r.IntN(3) == 0 {
			q.Field = []policies.Field{"phone.mobile", "iban", "name", "nothing"}[r.IntN(4)]
		}
		if r.IntN(3) == 0 {
			q.Kinds = []evidence.Kind{evidence.EntryUse, evidence.EntryDestroyed}[:1+r.IntN(2)]
		}
		if r.IntN(3) == 0 {
			q.Outcomes = []policies.Code{policies.CodeRevoked, policies.CodeNoGrant}[:1+r.IntN(2)]
		}
		if r.IntN(3) == 0 {
			q.From = start.Add(time.Duration(r.IntN(4000)) * time.Second)
		}
		if r.IntN(3) == 0 {
			q.To = start.Add(time.Duration(r.IntN(4000)) * time.Second)
		}
		if r.IntN(3) == 0 {
			q.Before = uint64(r.IntN(2500))
		}
		want := w.slow(t, q)
		q.Limit = r.IntN(50)
		var got []uint64
		for pages := 0; ; pages++ {
			rows, before, err := x.Search(q)
			if err != nil {
				t.Fatal(err)
			}
			if q.Limit > 0 && len(rows) > q.Limit || pages > 3000 {
				t.Fatalf("%d rows in page %d of %d", len(rows), pages, q.Limit)
			}
			for _, row := range rows {
				got = append(got, row.Index)
			}
			if before == 0 {
				break
			}
			q.Before = before
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%+v: %d entries, want %d", q, len(got), len(want))
		}
		hits += len(want)
	}
	if hits < 500 {
		t.Fatalf("only %d hits: the queries ask for nothing", hits)
	}
}

// TestCount holds counts against a search, densely counted and not.
func TestCount(t *testing.T) {
	w := populate(2000)
	x := openIndex(t, t.TempDir())
	if _, _, err := x.Update(t.Context(), w.open(t)); err != nil {
		t.Fatal(err)
	}
	for _, by := range [][]By{{}, {ByKind}, {ByReader, ByOutcome}, {ByDay}, {ByHour, ByReader}, {ByMinute}, {ByField, ByOwner}, {ByDay, ByKind, ByReader}} {
		q := Query{Reader: w.readers[1].Pseudonym}
		counts, err := x.Count(q, by...)
		if err != nil {
			t.Fatal(err)
		}
		rows, _, err := x.Search(q)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]uint64{}
		for _, r := range rows {
			c := Count{}
			for _, b := range by {
				switch b {
				case ByKind:
					c.Kind = r.Kind
				case ByOutcome:
					c.Outcome = r.Outcome
				case ByOwner:
					c.Owner = r.Owner
				case ByReader:
					if c.Reader = r.Reader; r.Kind == evidence.EntryDestroyed && r.Reader.Pseudonym.IsZero() {
						c.Reader.Kind = "several"
					}
				case ByField:
					c.Field = r.Field
				case ByDay:
					c.Time = r.Time.Format(time.DateOnly)
				case ByHour:
					c.Time = r.Time.Truncate(time.Hour).Format("2006-01-02T15:04Z")
				case ByMinute:
					c.Time = r.Time.Truncate(time.Minute).Format("2006-01-02T15:04Z")
				}
			}
			if slices.Contains(by, ByField) && r.Kind == evidence.EntryDestroyed {
				c.Field = "several"
			}
			want[fmt.Sprint(c)]++
		}
		if len(counts) != len(want) {
			t.Fatalf("by %v: %d counts, want %d", by, len(counts), len(want))
		}
		for i, c := range counts {
			n := c.Entries
			c.Entries = 0
			if want[fmt.Sprint(c)] != n {
				t.Fatalf("by %v: %+v has %d entries, want %d", by, c, n, want[fmt.Sprint(c)])
			}
			if i > 0 && counts[i-1].Entries < n {
				t.Fatal("not the most first")
			}
		}
	}
	if _, err := x.Count(Query{}, ByDay, ByKind, ByReader, ByOwner); err == nil {
		t.Fatal("four properties at once")
	}
	if _, err := x.Count(Query{}, "colour"); err == nil {
		t.Fatal("a property that entries do not have")
	}
	if days, err := x.Count(Query{}, ByDay); err != nil || len(days) < 2 {
		t.Fatal("the log does not cover midnight, so that days prove nothing", err)
	}
}

// TestSparseCount makes so many parties that not every combination has a counter of its own.
func TestSparseCount(t *testing.T) {
	l := newLog()
	for i := range 3000 {
		p := policies.Pseudonym{2, byte(i), byte(i >> 8)}
		l.add(start, evidence.Entry{Kind: evidence.EntryUse, Owner: p, Reader: p, Outcome: policies.CodeReleased}, evidence.Details{}, nil)
	}
	x := openIndex(t, t.TempDir())
	if _, _, err := x.Update(t.Context(), l.open(t)); err != nil {
		t.Fatal(err)
	}
	counts, err := x.Count(Query{}, ByOwner, ByReader)
	if err != nil || len(counts) != 3000 || counts[0].Entries != 1 || counts[7].Owner != counts[7].Reader {
		t.Fatal(len(counts), err)
	}
}

// TestUpdate adds in pieces, over restarts, and comes to the same files as at once.
func TestUpdate(t *testing.T) {
	w := populate(1500)
	whole, pieces := t.TempDir(), t.TempDir()
	x := openIndex(t, whole)
	if _, _, err := x.Update(t.Context(), w.open(t)); err != nil {
		t.Fatal(err)
	}
	all := *w.testLog
	for _, n := range []int{1, 2, 300, 301, 1000, 1500} {
		part := all
		part.leaves, part.bodies = all.leaves[:n], all.bodies[:n]
		part.hashes = all.hashes[:tlog.StoredHashCount(int64(n))]
		y, err := Open(pieces)
		if err != nil {
			t.Fatal(err)
		}
		if _, anew, err := y.Update(t.Context(), part.open(t)); err != nil || anew != 0 {
			t.Fatal(anew, err)
		}
		if y.Rows() != uint64(n) {
			t.Fatalf("%d rows, want %d", y.Rows(), n)
		}
		y.Close()
	}
	for _, name := range []string{"time", "kind", "outcome", "owner", "reader", "field", "more", "grants"} {
		a, b := must(os.ReadFile(filepath.Join(whole, name))), must(os.ReadFile(filepath.Join(pieces, name)))
		if !slices.Equal(a, b) {
			t.Errorf("column %s differs", name)
		}
	}
}

// TestCutShort: an update that ended before its state was written never happened, and one over a log that cannot be read neither.
func TestCutShort(t *testing.T) {
	w := populate(1000)
	dir := t.TempDir()
	x := openIndex(t, dir)
	short := *w.testLog
	short.leaves, short.bodies, short.hashes = w.leaves[:500], w.bodies[:500], w.hashes[:tlog.StoredHashCount(500)]
	if _, _, err := x.Update(t.Context(), short.open(t)); err != nil {
		t.Fatal(err)
	}
	before := must(os.ReadFile(filepath.Join(dir, "state")))
	broken := *w.testLog
	broken.bodies = slices.Clone(w.bodies)
	broken.bodies[900] = []byte("not a body")
	if _, _, err := x.Update(t.Context(), broken.open(t)); !errors.Is(err, audit.ErrDamaged) {
		t.Fatal(err)
	}
	if x.Rows() != 500 || !slices.Equal(before, must(os.ReadFile(filepath.Join(dir, "state")))) {
		t.Fatal("half an update is in force")
	}
	for c := range columns { // as a crash after the columns and before the state leaves it
		f := must(os.OpenFile(filepath.Join(dir, layout[c].name), os.O_APPEND|os.O_WRONLY, 0))
		must(f.Write([]byte("torn")))
		f.Close()
	}
	y := openIndex(t, dir)
	if _, _, err := y.Update(t.Context(), w.open(t)); err != nil {
		t.Fatal(err)
	}
	rows, _, err := y.Search(Query{})
	if err != nil || len(rows) != 1000 {
		t.Fatal(len(rows), err)
	}
}

// TestFork: an index of one log is not mixed with another.
func TestFork(t *testing.T) {
	w := populate(600)
	x := openIndex(t, t.TempDir())
	if _, _, err := x.Update(t.Context(), w.open(t)); err != nil {
		t.Fatal(err)
	}
	other := newLog()
	for i := range 700 {
		other.add(start, evidence.Entry{Kind: evidence.EntryUse, Reader: policies.Pseudonym{9, byte(i)}, Outcome: policies.CodeReleased}, evidence.Details{}, nil)
	}
	if added, anew, err := x.Update(t.Context(), other.open(t)); err != nil || added != 700 || anew != 600 {
		t.Fatal(added, anew, err)
	}
	if rows, _, err := x.Search(Query{Reader: w.readers[0].Pseudonym}); err != nil || len(rows) != 0 {
		t.Fatal("rows of the other log", rows, err)
	}
}

// TestDamage flips one bit in each column and in the state: it is found before it is told.
func TestDamage(t *testing.T) {
	w := populate(400)
	dir := t.TempDir()
	x := openIndex(t, dir)
	if _, _, err := x.Update(t.Context(), w.open(t)); err != nil {
		t.Fatal(err)
	}
	q := Query{Owner: w.owners[0].Pseudonym, Reader: w.readers[0].Pseudonym, Field: "iban", Kinds: []evidence.Kind{evidence.EntryUse}, Outcomes: []policies.Code{policies.CodeReleased}}
	for c := range columns {
		f := must(os.OpenFile(filepath.Join(dir, layout[c].name), os.O_RDWR, 0))
		var b [1]byte
		must(f.ReadAt(b[:], 100))
		b[0] ^= 4
		must(f.WriteAt(b[:], 100))
		if _, _, err := x.Search(q); !errors.Is(err, ErrIndex) {
			t.Errorf("column %s: %v", layout[c].name, err)
		}
		if _, _, err := x.Update(t.Context(), w.open(t)); !errors.Is(err, ErrIndex) {
			t.Errorf("column %s, update: %v", layout[c].name, err)
		}
		b[0] ^= 4
		must(f.WriteAt(b[:], 100))
		f.Close()
	}
	for l := range lists {
		f := must(os.OpenFile(filepath.Join(dir, listLayout[l].name), os.O_RDWR, 0))
		var b [1]byte
		must(f.ReadAt(b[:], 3))
		must(f.WriteAt([]byte{b[0] ^ 1}, 3))
		_, _, searched := x.Search(q)
		_, _, updated := x.Update(t.Context(), w.open(t))
		if err := errors.Join(searched, updated); !errors.Is(err, ErrIndex) {
			t.Errorf("list %s: %v", listLayout[l].name, err)
		}
		must(f.WriteAt(b[:], 3))
		f.Close()
	}
	if _, _, err := x.Search(q); err != nil {
		t.Fatal(err)
	}
	text := must(os.ReadFile(filepath.Join(dir, "state")))
	for _, bad := range [][]byte{text[:len(text)-1], append(slices.Clone(text), '1'), summed(`{"format":2}`), summed(`{"format":3,"rows":0}`), []byte(`{"format":2,"rows":0}`), nil} {
		if _, err := parseState(bad); !errors.Is(err, ErrIndex) {
			t.Errorf("state %.20q: %v", bad, err)
		}
	}
}

// summed is a text with its checksum, as states have it.
func summed(text string) []byte { return fmt.Appendf(nil, "%s\n%08x\n", text, sum([]byte(text))) }

func FuzzState(f *testing.F) {
	w := populate(50)
	x := must(Open(f.TempDir()))
	if _, _, err := x.Update(f.Context(), w.open(f)); err != nil {
		f.Fatal(err)
	}
	f.Add(must(os.ReadFile(filepath.Join(x.dir, "state"))))
	f.Add(summed(`{"format":2}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseState(text)
		if err != nil { // mostly for its checksum
			s, err = parseState(summed(string(text)))
		}
		if err != nil {
			if !errors.Is(err, ErrIndex) {
				t.Fatal(err)
			}
			return
		}
		if s.Format != format || len(s.Fields) == 0 || len(s.Parties) == 0 {
			t.Fatalf("took %+v", s)
		}
	})
}

// TestFind finds parties by what an auditor has of them.
func TestFind(t *testing.T) {
	w := populate(100)
	x := openIndex(t, t.TempDir())
	if _, _, err := x.Update(t.Context(), w.open(t)); err != nil {
		t.Fatal(err)
	}
	p := w.readers[2]
	for _, word := range []string{"firm 5", p.ID.String(), p.ID.String()[:6], strings.ToUpper(p.ID.String()[:10]), p.Pseudonym.String(), p.Pseudonym.String()[:6]} {
		if found := x.Find(word); len(found) != 1 || found[0] != p {
			t.Errorf("%q finds %v, want %v", word, found, p)
		}
	}
	for _, word := range []string{"", "firm", p.ID.String()[:5], "zzzzzzz"} {
		if found := x.Find(word); len(found) != 0 {
			t.Errorf("%q finds %v", word, found)
		}
	}
}

// TestSentences: every kind of entry has words of its own.
func TestSentences(t *testing.T) {
	w := populate(300)
	x := openIndex(t, t.TempDir())
	if _, _, err := x.Update(t.Context(), w.open(t)); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for r, err := range w.open(t).Records(t.Context(), 0, 1<<40) {
		if err != nil {
			t.Fatal(err)
		}
		s, err := Sentence(r, x.Party)
		if err != nil {
			t.Fatal(err)
		}
		seen[s] = true
	}
	b, o := w.readers[0], w.owners[0]
	for _, want := range []string{
		"the log begins",
		b.String() + " was enrolled",
		b.String() + " read iban of " + o.String(),
		b.String() + " was refused iban of " + o.String() + ": " + policies.CodeRevoked.Error(),
		"the keys of a revocation of " + o.String() + " are gone",
		fmt.Sprintf("use, owner %s, reader %s, outcome %q; its details were erased when their retention was over", o, b, string(policies.CodeReleased)),
	} {
		if !seen[want] {
			t.Errorf("nobody said %q", want)
		}
	}
	if b.String() != `"Firm 1" (`+b.ID.String()[:8]+")" {
		t.Errorf("a business is called %s", b)
	}
}
