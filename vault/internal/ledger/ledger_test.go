package ledger

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/keylog"
)

// openDir is set for a child process that only reads a database: Badger may end the process that meets a damaged one.
const openDir = "LEDGER_TEST_OPEN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(openDir); dir != "" {
		if _, err := testIndex(dir).load(newState()); err != nil {
			os.Exit(3)
		}
		os.Exit(0)
	}
	if os.Getenv(flipChild) != "" {
		serveFlips()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func testIndex(dir string) *index {
	return &index{dir: dir, log: quiet, dataKey: [32]byte{1}, versions: map[string]uint64{}, left: map[string]struct{}{}, ciphers: map[uint64]cipher.AEAD{}}
}

type memory struct {
	key   ed25519.PrivateKey
	state []byte
}

func (m *memory) Sign(_ context.Context, b []byte) ([]byte, error) {
	return ed25519.Sign(m.key, b), nil
}
func (m *memory) Save(_ context.Context, b []byte) error {
	m.state = append([]byte(nil), b...)
	return nil
}
func (m *memory) Load(context.Context) ([]byte, error) { return m.state, nil }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// identityRecord enrols a fresh identity.
func identityRecord(t testing.TB, seed byte) Record {
	key := envelope.NewPrivateKey(&[envelope.SeedSize]byte{seed})
	kem := make([]byte, policies.KEMPublicKeySize)
	d := &policies.Identity{
		Header: policies.NewHeader("identity", time.Now()), Kind: policies.KindPerson, SigningKey: key.Public().Bytes(),
		KEMKey: kem, LoginKey: kem, RecoveryHash: policies.Hash{1},
	}
	e, err := policies.Sign[policies.Identity](key, d)
	must(t, err)
	p := policies.NewPseudonym()
	return Record{
		Kind: evidence.EntryIdentity, Owner: p, Outcome: policies.CodeAccepted, Raw: e.Raw, Document: d,
		Details: evidence.Details{Document: e.Hash, Identity: policies.IdentityID(e.Hash), Pseudo: p},
	}
}

func newLog(t testing.TB) *keylog.Log {
	_, key, err := ed25519.GenerateKey(nil)
	must(t, err)
	m := &memory{key: key}
	log, err := keylog.Create(t.Context(), keylog.Config{
		Dir: filepath.Join(t.TempDir(), "log"), StateDir: filepath.Join(t.TempDir(), "state"), Origin: "test/log",
		PublicKey: key.Public().(ed25519.PublicKey), Signer: m, State: m, Reserve: 1 << 20,
	})
	must(t, err)
	t.Cleanup(func() { log.Close() })
	for seed := range byte(5) {
		r := identityRecord(t, seed)
		_, _, err := log.Append(t.Context(), r.Seal())
		must(t, err)
	}
	return log
}

func open(t testing.TB, log *keylog.Log, dir string) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), Config{Dir: dir, DataKey: [32]byte{1}, Log: log, Logger: quiet, Reserve: 1})
	must(t, err)
	return l
}

// same compares all of the state that is not memory only.
func same(t testing.TB, a, b *Ledger) bool {
	t.Helper()
	x, y := *a.state, *b.state
	x.changed, y.changed = nil, nil
	return reflect.DeepEqual(x, y)
}

// TestDamagedDatabase: whatever is done to the files, what comes back is what the log says. Where Badger ends the process, the next start
// throws the database away.
func TestDamagedDatabase(t *testing.T) {
	log := newLog(t)
	dir := filepath.Join(t.TempDir(), "db")
	first := open(t, log, dir)
	must(t, first.Close())
	again := open(t, log, dir)
	if !same(t, first, again) || again.index.version != 1 {
		t.Fatal("the database was not read, or read wrongly")
	}
	must(t, again.Close())

	files, err := os.ReadDir(dir)
	must(t, err)
	crashes := 0
	for _, f := range files {
		for _, how := range []string{"flipped", "cut", "emptied", "removed"} {
			t.Run(f.Name()+" "+how, func(t *testing.T) {
				damaged := filepath.Join(t.TempDir(), "db")
				must(t, os.CopyFS(damaged, os.DirFS(dir)))
				path := filepath.Join(damaged, f.Name())
				data, err := os.ReadFile(path)
				must(t, err)
				switch how {
				case "flipped":
					for i := 0; i < len(data); i += 1 + len(data)/97 {
						data[i] ^= 0x10
					}
				case "cut":
					data = data[:len(data)/2]
				case "emptied":
					data = nil
				}
				must(t, os.WriteFile(path, data, 0o600))
				if how == "removed" {
					must(t, os.Remove(path))
				}
				child := exec.Command(os.Args[0])
				child.Env = append(os.Environ(), openDir+"="+damaged)
				err = child.Run()
				if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() != 3 {
					crashes++
				} else if err != nil && exit == nil {
					t.Fatal(err)
				}
				l := open(t, log, damaged)
				defer l.Close()
				if !same(t, first, l) {
					t.Error("another state than the log's")
				}
			})
		}
	}
	t.Logf("Badger ended the process in %d cases", crashes)
}

func TestDatabaseAheadOrForeign(t *testing.T) {
	log, other := newLog(t), newLog(t)
	r := identityRecord(t, 99)
	_, _, err := other.Append(t.Context(), r.Seal())
	must(t, err)
	dir := filepath.Join(t.TempDir(), "db")
	must(t, open(t, other, dir).Close())
	l := open(t, log, dir) // ahead
	if len(l.state.identities) != 5 || l.state.next != 5 {
		t.Fatal("a database that is ahead of the log was believed")
	}
	must(t, l.Close())
	l = open(t, other, dir) // behind, and of another log
	if len(l.state.identities) != 6 || l.state.next != 6 {
		t.Fatal("a database of another log was believed")
	}
	must(t, l.Close())
}

// TestMissingValue: a value that was deleted by whoever can write to the database, or put back to an older version, is noticed.
func TestMissingOrOldValue(t *testing.T) {
	log := newLog(t)
	dir := filepath.Join(t.TempDir(), "db")
	l := open(t, log, dir)
	var id policies.IdentityID
	for id = range l.state.identities {
		break
	}
	key := identityKey(id)
	x := l.index
	old := x.seal(key, l.state.encode(key))
	x.version++
	for _, c := range []struct { // in this order: the first moves the version on
		name  string
		write func() error
	}{
		{"old", func() error {
			b := x.db.NewWriteBatchAt(x.version)
			b.Set([]byte(key), old[:len(old):len(old)])
			return b.Flush()
		}},
		{"missing", func() error { b := x.db.NewWriteBatchAt(x.version); b.Delete([]byte(key)); return b.Flush() }},
	} {
		name, write := c.name, c.write
		if name == "old" { // a newer version of the same value was written meanwhile
			l.state.touch(key)
			must(t, x.write(map[string][]byte{key: l.state.encode(key)}, meta{Next: l.state.next, Root: policies.Hash(log.Checkpoint().Root)}))
		}
		must(t, write())
		must(t, x.db.Close())
		fresh := testIndex(dir)
		if _, err := fresh.load(newState()); !errors.Is(err, errUseless) {
			t.Errorf("%s: %v", name, err)
		}
		fresh.drop()
		must(t, os.RemoveAll(dir))
		must(t, os.Remove(dir+".reading"))
		l = open(t, log, dir)
		x = l.index
	}
	l.Close()
}

// TestFlushCutShort: a flush that a crash cut short never happened. The database is as it was before, is read, and what was left is written over.
func TestFlushCutShort(t *testing.T) {
	log := newLog(t)
	dir := filepath.Join(t.TempDir(), "db")
	l := open(t, log, dir)
	instance := l.index.instance
	var seeds byte = 50
	for _, written := range []int{0, 1, 3, 1000} {
		for range 4 {
			r := identityRecord(t, seeds)
			seeds++
			_, _, err := log.Append(t.Context(), r.Seal())
			must(t, err)
		}
		from := l.state.next
		o := newInOrder(decodeAll, func(e *entries) error {
			for _, r := range e.records {
				must(t, l.state.Apply(r))
			}
			return nil
		})
		must(t, log.Replay(t.Context(), int64(from), func(p keylog.Position, r keylog.Record) error {
			r = keylog.Record{Entry: bytes.Clone(r.Entry), Body: bytes.Clone(r.Body)}
			o.add(&entries{positions: []keylog.Position{p}, raw: []keylog.Record{r}})
			return nil
		}))
		must(t, o.finish())
		x := l.index
		x.version++
		batch := x.db.NewWriteBatchAt(x.version)
		n := 0
		for key := range l.state.changed {
			if n++; n <= written {
				must(t, batch.Set([]byte(key), x.seal(key, l.state.encode(key))))
			}
		}
		var stray policies.DocumentID // one whose import is over when the log is read again
		must(t, batch.Set([]byte(importKey(stray)), x.seal(importKey(stray), []byte("{}"))))
		must(t, batch.Flush())
		must(t, x.db.Close())

		s := newState()
		fresh := testIndex(dir)
		if m, err := fresh.load(s); err != nil || m.Next != from || len(fresh.left) == 0 {
			t.Fatalf("%d values were written: %v, at %d, want %d; %d keys are left", written, err, m.Next, from, len(fresh.left))
		}
		must(t, fresh.close())
		l = open(t, log, dir) // with what the log has beyond it
		memory := open(t, log, "")
		if !same(t, memory, l) || l.index.instance != instance {
			t.Fatalf("%d values were written: another state than the log's, or made anew", written)
		}
		if len(l.index.left) != 0 || int(l.state.next) != int(log.Checkpoint().Size) {
			t.Fatal("what was left was not written over")
		}
		must(t, l.Close())
		l = open(t, log, dir)
		if !same(t, memory, l) || l.index.instance != instance {
			t.Fatalf("%d values were written: the next start has another state, or made it anew", written)
		}
	}
	must(t, l.Close())
}

// fill sets every member of a value to something else.
func fill(v reflect.Value, next *byte) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), next)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), next)
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		*next++
		v.SetString(strings.Repeat("x", int(*next)))
	case reflect.Uint8, reflect.Uint64:
		*next++
		v.SetUint(uint64(*next))
	case reflect.Int64:
		*next++
		v.SetInt(-int64(*next))
	}
}

// TestGrantsComeBack: a grant that is written and read again is the same, whatever members the type of grants gets later.
func TestGrantsComeBack(t *testing.T) {
	d := new(policies.Grant)
	var next byte
	fill(reflect.ValueOf(d).Elem(), &next)
	g := newGrant(d, policies.Hash{7}, 8)
	g.Revoked[1] = true
	value := appendGrant(nil, g)
	got, err := decodeGrant(value)
	must(t, err)
	if !reflect.DeepEqual(got, g) {
		t.Errorf("%+v\nis not\n%+v", got, g)
	}
	for n := range value {
		if _, err := decodeGrant(value[:n]); err == nil {
			t.Fatalf("cut to %d bytes it is a grant", n)
		}
	}
	if _, err := decodeGrant(append(value, 0)); err == nil {
		t.Error("something behind it is not noticed")
	}
}

// TestReleasesComeBack: what was released today is the same after it was written and read; no other bytes mean it.
func TestReleasesComeBack(t *testing.T) {
	sp := &spent{day: 20000, used: map[written]uint64{{"b", policies.AuthorID{1}}: 2, {"b", policies.AuthorID{2}}: 3, {"a.b", policies.AuthorID{9}}: 1 << 40}}
	value := appendSpent(nil, sp)
	got, err := decodeSpent(value)
	must(t, err)
	if !reflect.DeepEqual(got, sp) {
		t.Errorf("%+v is not %+v", got, sp)
	}
	whole := map[int]bool{8: true, 8 + 45: true, 8 + 45 + 43: true} // after the day and after each field
	for n := range value {
		if _, err := decodeSpent(value[:n]); err == nil && !whole[n] {
			t.Fatalf("cut to %d bytes it is a count", n)
		}
	}
	if _, err := decodeSpent(append(bytes.Clone(value), value[8:]...)); err == nil {
		t.Error("a field that comes twice is not noticed")
	}
}

func FuzzReleasedValue(f *testing.F) {
	f.Add(appendSpent(nil, &spent{day: 20000, used: map[written]uint64{{"b", policies.AuthorID{1}}: 2, {"a", policies.AuthorID{2}}: 3}}))
	f.Fuzz(func(t *testing.T, value []byte) {
		if sp, err := decodeSpent(value); err == nil && !bytes.Equal(appendSpent(nil, sp), value) {
			t.Fatal("one count has two encodings")
		}
	})
}

// TestDaysEnd: the counts of a day that is over are forgotten, also in the database; those of a day that is not, and what is promised, stay. What is promised belongs to the day on which it was decided.
func TestDaysEnd(t *testing.T) {
	s := newState()
	at := time.Unix(20000*86400, 0)
	g := &Grant{Document: policies.Grant{Owner: policies.OwnerID{1}, Reader: policies.ReaderID{2}, Limits: policies.Limits{ReadsPerDay: 1}, Fields: []policies.GrantedField{{Field: "a"}}}}
	s.Promise(g, "a", policies.AuthorID{}, at)
	s.release(g, "a", policies.AuthorID{}, at)
	s.EndDays(at.Add(24*time.Hour - 1))
	if n := s.UsedOn(g, at); n != 1 {
		t.Errorf("%d are counted on the day itself", n)
	}
	s.Promise(g, "a", policies.AuthorID{}, at.Add(24*time.Hour-1))
	s.Promise(g, "a", policies.AuthorID{}, at.Add(24*time.Hour))
	s.EndDays(at.Add(24 * time.Hour))
	if n := s.UsedOn(g, at.Add(24*time.Hour)); n != 1 {
		t.Errorf("%d are promised on the next day", n)
	}
	if n := s.UsedOn(g, at); n != 2 {
		t.Errorf("%d are released or promised on the day itself", n)
	}
	s.Withdraw(g, "a", policies.AuthorID{}, at)
	s.Withdraw(g, "a", policies.AuthorID{}, at.Add(24*time.Hour))
	key := spentKey(pair{g.Document.Owner, g.Document.Reader})
	clear(s.changed)
	s.EndDays(at.Add(24 * time.Hour))
	if _, noted := s.changed[key]; !noted || len(s.spent) != 0 || s.encode(key) != nil {
		t.Error("a day that is over is kept")
	}
}

func FuzzGrantValue(f *testing.F) {
	d := new(policies.Grant)
	var next byte
	fill(reflect.ValueOf(d).Elem(), &next)
	f.Add(appendGrant(nil, newGrant(d, policies.Hash{7}, 8)))
	f.Fuzz(func(t *testing.T, value []byte) {
		if g, err := decodeGrant(value); err == nil && !bytes.Equal(appendGrant(nil, g), value) {
			t.Fatal("one grant has two encodings")
		}
	})
}

func TestApplyRefusesWhatCannotCome(t *testing.T) {
	base := func() *State {
		s := newState()
		r := identityRecord(t, 1)
		must(t, s.Apply(&r))
		return s
	}
	twice := identityRecord(t, 1)
	for name, r := range map[string]*Record{
		"a gap":                {Kind: evidence.EntryStop, Index: 5},
		"a second genesis":     {Kind: evidence.EntryGenesis, Index: 1, Document: &policies.VaultDocument{}},
		"an unknown kind":      {Kind: "surprise", Index: 1},
		"a grant not imported": {Kind: evidence.EntryGrant, Index: 1},
		"a destroyed nothing":  {Kind: evidence.EntryDestroyed, Index: 1},
		"a chain of nobody":    {Kind: evidence.EntryManifest, Index: 1, Document: &policies.Manifest{Link: policies.Link{Seq: 1}}},
		"a revoked nothing":    {Kind: evidence.EntryRevocation, Index: 1, Document: &policies.Revocation{}},
		"no pseudonym":         {Kind: evidence.EntryIdentity, Index: 1, Document: &policies.Identity{}},
	} {
		if err := base().Apply(r); !errors.Is(err, ErrOrder) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := base()
	for id := range s.identities {
		twice.Details.Document = policies.Hash(id)
	}
	twice.Index = 1
	if err := s.Apply(&twice); !errors.Is(err, ErrOrder) {
		t.Errorf("the same identity twice: %v", err)
	}
}

// TestDecodeRefusesForgedBodies: bodies are not in the log's tree, so an edited one must not get into the state.
func TestDecodeRefusesForgedBodies(t *testing.T) {
	r := identityRecord(t, 1)
	raw := r.Seal()
	if _, err := Decode(keylog.Position{}, raw); err != nil {
		t.Fatal(err)
	}
	other := identityRecord(t, 2)
	body := evidence.Body{Opening: r.Opening, Document: other.Raw}
	for name, forged := range map[string][]byte{
		"another opening":  other.Seal().Body,
		"another document": body.Bytes(),
		"cut":              raw.Body[:len(raw.Body)-1],
		"erased":           nil,
	} {
		if _, err := Decode(keylog.Position{}, keylog.Record{Entry: raw.Entry, Body: forged}); err == nil {
			t.Errorf("%s: decoded", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	r := identityRecord(f, 1)
	raw := r.Seal()
	f.Add(raw.Entry, raw.Body)
	refusals := Record{Kind: evidence.EntryRefusals, Details: evidence.Details{Count: 1}}
	raw = refusals.Seal()
	f.Add(raw.Entry, raw.Body)
	f.Fuzz(func(t *testing.T, entry, body []byte) {
		r, err := Decode(keylog.Position{}, keylog.Record{Entry: entry, Body: body})
		if err == nil && len(body) > 0 {
			e, _ := evidence.ParseEntry(entry)
			if r.Opening.Commitment() != e.Commitment {
				t.Fatal("a body was accepted that the entry does not commit to")
			}
		}
		if err == nil {
			newState().Apply(r)
		}
	})
}

func FuzzDatabaseValue(f *testing.F) {
	for _, kind := range []byte("ichbgpdsuoerm?") {
		f.Add(string(kind)+string(make([]byte, 32)), []byte(`{}`))
		f.Add(string(kind)+string(make([]byte, 40)), make([]byte, 16))
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		if len(key) == 0 {
			return
		}
		s := newState()
		if insert, err := decode(key, value); err == nil {
			insert(s)
			if _, err := json.Marshal(s.sessions); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestErasedUse: the body of a use carries its nonce and its count. Nobody erases it while they matter; when they no longer do, it may go.
func TestErasedUse(t *testing.T) {
	for _, kind := range []evidence.Kind{evidence.EntryUse, evidence.EntrySession} {
		log := newLog(t)
		entry := evidence.Entry{Kind: kind, Outcome: policies.CodeReleased}
		_, _, err := log.Append(t.Context(), keylog.Record{Entry: entry.Bytes()})
		must(t, err)
		if _, err := Open(t.Context(), Config{Log: log, Logger: quiet}); err == nil {
			t.Errorf("%s: the body was erased at once, and nobody minds", kind)
		}
		s := newState()
		s.next = 5
		if err := s.Apply(&Record{Kind: kind, Index: 5}); err != nil {
			t.Errorf("%s: erased long ago: %v", kind, err)
		}
	}
}

// TestNothingIsNotedForNoDatabase: what changed is noted for the database. Without one, or with one that failed, the notes do not grow.
func TestNothingIsNotedForNoDatabase(t *testing.T) {
	log := newLog(t)
	l := open(t, log, "")
	defer l.Close()
	l.state.touch("a")
	cp := log.Checkpoint()
	must(t, l.Flush(policies.Hash(cp.Root), uint64(cp.Size)))
	if n := len(l.state.changed); n != 0 {
		t.Errorf("%d notes", n)
	}
}

// TestNoTalkOfTheCache: what Badger says every minute of its block cache, which nobody can set, is no warning to an operator. What else it warns of is.
func TestNoTalkOfTheCache(t *testing.T) {
	var out bytes.Buffer
	b := badgerLog{slog.New(slog.NewTextHandler(&out, nil))}
	b.Warningf("%s might be too small. Metrics: %s\n", "Block cache", "hit: 5 miss: 187")
	b.Warningf("Cache life expectancy (in seconds): %+v\n", 1)
	if out.Len() != 0 {
		t.Errorf("said: %s", &out)
	}
	b.Warningf("cannot %s", "compact")
	if !strings.Contains(out.String(), "level=WARN msg=\"database: cannot compact\"") {
		t.Errorf("said: %s", &out)
	}
}
