package storefront

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
	vaultapi "github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/pre"
)

func TestLRU(t *testing.T) {
	l := newLRU[string, int](10)
	for i := range 10 {
		l.put(fmt.Sprint(i), i, 1)
	}
	l.get("0")
	l.put("heavy", 99, 3) // takes the place of 1, 2 and 3
	for key, want := range map[string]bool{"0": true, "1": false, "2": false, "3": false, "4": true, "heavy": true} {
		if _, ok := l.get(key); ok != want {
			t.Errorf("%s: there %v, want %v", key, ok, want)
		}
	}
	l.put("heavy", 100, 1)
	if v, _ := l.get("heavy"); v != 100 || l.weight != 8 || len(l.entries) != 8 {
		t.Errorf("%d, weight %d of %d entries", v, l.weight, len(l.entries))
	}
	l.put("heavy", 1, 11)
	if _, ok := l.get("heavy"); ok {
		t.Error("kept what is heavier than the bound, or the value before it")
	}
	l.remove("0")
	l.remove("0")
	if l.weight != 6 {
		t.Errorf("weight %d, want 6", l.weight)
	}
}

func TestNames(t *testing.T) {
	n := names{configured: []string{"Storefront.example", "127.0.0.1:8443", "::1"}}
	for host, want := range map[string]bool{
		"storefront.example": true, "STOREFRONT.example:9": true, "127.0.0.1:8443": true, "127.0.0.1:8444": false, "127.0.0.1": false,
		"[::1]:8": true, "[::1]": true, "evil.example": false, "storefront.example.evil": false, "": false, "storefront.example:9:9": false,
	} {
		authority, err := n.authority(&http.Request{Host: host})
		if (err == nil) != want {
			t.Errorf("%q: %v", host, err)
		}
		if err == nil && authority == "" {
			t.Errorf("%q: no authority", host)
		}
	}
}

func TestLocks(t *testing.T) {
	var l locks
	var wg sync.WaitGroup
	count := 0
	for range 50 {
		wg.Go(func() {
			unlock, err := l.lock(context.Background(), slot{})
			if err != nil {
				t.Error(err)
				return
			}
			count++
			unlock()
		})
	}
	wg.Wait()
	if count != 50 || len(l.held) != 0 {
		t.Errorf("count %d, %d locks left", count, len(l.held))
	}
	unlock, _ := l.lock(context.Background(), slot{})
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, err := l.lock(ctx, slot{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a lock that is held: %v", err)
	}
	other, err := l.lock(context.Background(), slot{owner: policies.OwnerID{1}})
	if err != nil {
		t.Fatal(err)
	}
	other()
	unlock()
	if len(l.held) != 0 {
		t.Errorf("%d locks left", len(l.held))
	}
}

func TestPick(t *testing.T) {
	now := time.Unix(1000, 0)
	author := policies.AuthorID{1}
	make := func(id byte, epoch uint64, purpose string, expires int64, ended bool) grant {
		g := grant{ended: map[endedField]bool{}}
		g.ID, g.Purpose, g.Expires = policies.DocumentID{id}, purpose, expires
		g.Fields = []policies.GrantedField{{Field: "name", Epoch: epoch, Author: author}}
		if ended {
			g.ended[endedField{"name", author}] = true
		}
		return g
	}
	for name, c := range map[string]struct {
		grants []grant
		want   byte
	}{
		"none":                             {nil, 0},
		"of another field only":            {[]grant{{Grant: policies.Grant{Header: policies.Header{ID: policies.DocumentID{1}}}}}, 0},
		"the newest":                       {[]grant{make(1, 2, "p", 2000, false), make(2, 2, "p", 2000, false)}, 2},
		"of the epoch":                     {[]grant{make(1, 2, "p", 2000, false), make(2, 3, "p", 2000, false)}, 1},
		"of the epoch although it ended":   {[]grant{make(1, 2, "p", 2000, true), make(2, 1, "p", 2000, false)}, 1},
		"in force rather than ended":       {[]grant{make(1, 2, "p", 2000, false), make(2, 2, "p", 2000, true)}, 1},
		"in force rather than expired":     {[]grant{make(1, 2, "p", 2000, false), make(2, 2, "p", 900, false)}, 1},
		"of the purpose":                   {[]grant{make(1, 2, "p", 2000, false), make(2, 2, "q", 2000, false)}, 1},
		"if none fits, one that does not":  {[]grant{make(1, 1, "q", 900, true)}, 1},
		"if none fits the epoch, a newest": {[]grant{make(1, 1, "p", 2000, false), make(2, 1, "p", 2000, false)}, 2},
	} {
		set := grantSet{grants: c.grants}
		var got byte
		if g := set.pick("name", author, 2, "p", now); g != nil {
			got = g.ID[0]
		}
		if got != c.want {
			t.Errorf("%s: grant %d, want %d", name, got, c.want)
		}
	}
}

func FuzzParseItems(f *testing.F) {
	root, err := pre.ParseRoot(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		f.Fatal(err)
	}
	k := slot{policies.OwnerID{1}, policies.AuthorID{1}}
	fk, err := root.FieldKey(policies.Slot{Owner: k.owner, Field: "name", Epoch: 1, Author: k.author})
	if err != nil {
		f.Fatal(err)
	}
	l, body, err := fk.Seal(1, []byte("Anna"), nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, p := range []api.Publication{
		{Manifest: []byte("{}"), Items: []api.Item{{Leaf: l.Bytes(), Ciphertext: body}}},
		{Manifest: []byte("{}"), Items: []api.Item{{Leaf: l.Bytes()}}, Removed: []policies.Field{"city"}},
		{Manifest: []byte("{}"), Removed: []policies.Field{"a", "a"}},
	} {
		data, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var p api.Publication
		if envelope.Decode(data, &p) != nil {
			return
		}
		in, err := parseItems(&p, k)
		if err != nil {
			return
		}
		if len(in.leaves) != len(p.Items) {
			t.Fatal("an item was lost")
		}
		for _, l := range in.leaves {
			if l.Owner != k.owner || l.Author != k.author || l.point() == [65]byte{} {
				t.Fatal("an item that must be refused was taken")
			}
			if got, ok := in.bodies[l.CiphertextHash]; ok && l.ciphertext != 0 && len(got) != l.ciphertext {
				t.Fatal("another length")
			}
		}
	})
}

func FuzzCursor(f *testing.F) {
	f.Add("")
	f.Add("zz")
	f.Add(fmt.Sprintf("%080x", 5))
	f.Fuzz(func(t *testing.T, text string) {
		after, err := parseCursor([]byte("prefix"), text)
		if err != nil {
			return
		}
		if text == "" && after == nil {
			return
		}
		if len(after) != len("prefix")+40 || fmt.Sprintf("%x", after[len("prefix"):]) != text {
			t.Fatalf("%q gives %x", text, after)
		}
	})
}

func FuzzLeafRecord(f *testing.F) {
	f.Add(leafRecord([]byte("leaf"), 77))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		leaf, n, err := parseLeafRecord(data)
		if err == nil && !bytes.Equal(leafRecord(leaf, n), data) {
			t.Fatal("two encodings")
		}
	})
}

// benchVault releases everything at once, so that what is measured is the storefront.
type benchVault struct{ adapter }

func (benchVault) Reencrypt(_ context.Context, c vaultapi.Call) (vaultapi.Reply, error) {
	r := vaultapi.Reply{Outcomes: make([]policies.Code, len(c.Items)), Sealed: make([]byte, 40+122*len(c.Items))}
	for i := range r.Outcomes {
		r.Outcomes[i] = policies.CodeReleased
	}
	return r, nil
}

func BenchmarkRead(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkRead(b, n) })
	}
}

// benchmarkRead reads one field of each of n owners, all of it in memory, with the documents known to the reader.
func benchmarkRead(b *testing.B, n int) {
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	db, err := store.Open(store.Options{Dir: b.TempDir()})
	must(err)
	defer db.Close()
	limits := loose
	limits.FieldRate, limits.FieldBurst = 1e12, 1e9
	s, err := New(Options{Store: db, Vault: benchVault{}, Names: []string{"bench"}, Limits: limits})
	must(err)
	defer s.Close()
	var seed [envelope.SeedSize]byte
	signer := envelope.NewPrivateKey(&seed)
	root, err := pre.NewRoot()
	must(err)
	reader := policies.ReaderID{1}
	req := &policies.ReadRequest{
		Header: policies.NewHeader("read", time.Now()), Audience: policies.VaultID{1}, Session: policies.Hash{1}, Nonce: policies.NewNonce(),
		Expires: time.Now().Unix() + 120, Purpose: "bench",
	}
	in := api.Read{}
	for i := range n {
		owner := policies.OwnerID{byte(i), 1}
		k := own(owner)
		var leaves []*leaf
		for _, f := range []policies.Field{"name", "phone.mobile", "email"} {
			fk, err := root.FieldKey(policies.Slot{Owner: owner, Field: f, Epoch: 1, Author: k.author})
			must(err)
			l, body, err := fk.Seal(1, []byte("a value of a field"), nil)
			must(err)
			one, err := newLeaf(l.Bytes(), len(body))
			must(err)
			leaves = append(leaves, one)
			s.ciphers.put(cipherKey{k, l.CiphertextHash}, body, len(body))
		}
		plain := make([]policies.Leaf, len(leaves))
		for i := range leaves {
			plain[i] = leaves[i].Leaf
		}
		merkle, err := policies.NewTree(plain)
		must(err)
		m := &policies.Manifest{
			Header: policies.NewHeader("manifest", time.Now()), Audience: policies.VaultID{1}, Owner: owner, Author: k.author,
			Link: policies.Link{Seq: 1}, Version: 1, TreeSize: 3, Root: merkle.Root(),
		}
		env, err := policies.Sign(signer, m)
		must(err)
		t, err := newTree(env, m, nil, leaves)
		must(err)
		s.shelves.put(k, &shelf{version: 1, current: t}, 4)
		g := grant{hash: policies.Hash{byte(i), 2}}
		g.ID, g.Purpose, g.Expires = policies.DocumentID{byte(i)}, "bench", time.Now().Unix()+1000
		g.Fields = []policies.GrantedField{{Field: "phone.mobile", Epoch: 1, Author: k.author}}
		s.grants.put(pair{reader, owner}, &grantSet{grants: []grant{g}}, 1)
		req.Items = append(req.Items, policies.ReadItem{Owner: owner, Field: "phone.mobile"})
		in.Have = append(in.Have, env.Hash, g.hash)
	}
	env, err := policies.Sign(envelope.NewSessionKey(), req)
	must(err)
	in.Request = env.Raw
	must(s.sessions.add(policies.Hash{1}, openSession{reader, time.Now().Unix() + 600}, time.Now(), 10))
	body, err := json.Marshal(in)
	must(err)
	h := s.Handler()
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		r := httptest.NewRequest("POST", api.PathReads, bytes.NewReader(body))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatal(w.Body.String())
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/field")
}
