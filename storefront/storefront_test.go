package storefront

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

func item(owner *party, f policies.Field) policies.ReadItem {
	return policies.ReadItem{Owner: owner.owner(), Field: f}
}

// mustRead reads one field and demands its value.
func mustRead(t *testing.T, owner, reader *party, g *policies.Grant, f policies.Field, want string) *api.ReadResult {
	t.Helper()
	out, answer, err := reader.read("billing", nil, item(owner, f))
	if err != nil {
		t.Fatal(err)
	}
	got, err := reader.value(owner, g, out, answer, 0)
	if err != nil || got != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
	return out
}

func outcome(t *testing.T, reader *party, items ...policies.ReadItem) policies.Code {
	t.Helper()
	_, answer, err := reader.read("billing", nil, items...)
	if err != nil {
		t.Fatal(err)
	}
	return answer.Items[0].Outcome
}

func TestStory(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "Anna Müller"), anna.set("phone.mobile", "+49 170 1"), anna.set("iban", "DE00")})
	g := anna.give(acme, "billing", "name", "phone.mobile")
	acme.openSession()

	out := mustRead(t, anna, acme, g, "phone.mobile", "+49 170 1")
	if len(out.Documents) != 2 {
		t.Fatalf("%d documents, want manifest and grant", len(out.Documents))
	}
	manifest, grant := out.Items[0].Manifest, out.Items[0].Grant

	anna.publish([]api.Item{anna.set("phone.mobile", "+49 170 2")})
	mustRead(t, anna, acme, g, "phone.mobile", "+49 170 2")

	t.Run("what the reader has is not sent again", func(t *testing.T) {
		out, answer, err := acme.read("billing", []policies.Hash{policies.Hash(anna.manifest), grant}, item(anna, "phone.mobile"))
		if err != nil {
			t.Fatal(err)
		}
		if v, err := acme.value(anna, g, out, answer, 0); err != nil || v != "+49 170 2" || len(out.Documents) != 0 {
			t.Errorf("%q, %v, %d documents", v, err, len(out.Documents))
		}
		out, _, err = acme.read("billing", []policies.Hash{manifest, grant}, item(anna, "phone.mobile"))
		if err != nil || len(out.Documents) != 1 {
			t.Errorf("%v; an old manifest's hash kept the new one from being sent", err)
		}
	})
	t.Run("a known version", func(t *testing.T) {
		known := item(anna, "phone.mobile")
		known.Known = 2
		out, answer, err := acme.read("billing", nil, known)
		if err != nil || answer.Items[0].Outcome != policies.CodeUnchanged || out.Items[0].Ciphertext != nil || len(out.Documents) != 0 {
			t.Errorf("%v, %+v", err, out)
		}
	})
	t.Run("several at once", func(t *testing.T) {
		out, answer, err := acme.read("billing", nil, item(anna, "name"), item(anna, "iban"), item(anna, "phone.mobile"), item(anna, "nothing"))
		if err != nil {
			t.Fatal(err)
		}
		if v, err := acme.value(anna, g, out, answer, 0); v != "Anna Müller" {
			t.Errorf("name: %q, %v", v, err)
		}
		if v, err := acme.value(anna, g, out, answer, 2); v != "+49 170 2" {
			t.Errorf("phone: %q, %v", v, err)
		}
		for _, i := range []int{1, 3} {
			if answer.Items[i].Outcome != policies.CodeNoGrant || out.Items[i].Ciphertext != nil || out.Items[i].Leaf != nil {
				t.Errorf("item %d: %s, %+v", i, answer.Items[i].Outcome, out.Items[i])
			}
		}
		if len(out.Documents) != 2 {
			t.Errorf("%d documents, want one manifest and one grant", len(out.Documents))
		}
	})
	t.Run("rotation moves no ciphertext", func(t *testing.T) {
		anna.publish([]api.Item{anna.rotate("name")})
		g2 := anna.give(acme, "billing", "name")
		mustRead(t, anna, acme, g2, "name", "Anna Müller")
	})
	t.Run("removed", func(t *testing.T) {
		anna.publish(nil, "iban")
		var m api.Mirror
		w.must(anna.do("GET", fill(api.PathMirror, anna.owner()), nil, &m))
		if len(m.Leaves) != 2 {
			t.Errorf("%d leaves, want 2", len(m.Leaves))
		}
	})
	t.Run("revoked", func(t *testing.T) {
		w.must(anna.submit(api.PathRevocations, anna.revocation(g, "phone.mobile")))
		if got := outcome(t, acme, item(anna, "phone.mobile")); got != policies.CodeRevoked {
			t.Errorf("got %s, want %s", got, policies.CodeRevoked)
		}
	})
	t.Run("mirror, items, chain, history", func(t *testing.T) {
		var m api.Mirror
		w.must(anna.do("GET", fill(api.PathMirror, anna.owner())+"?author="+anna.id.String(), nil, &m))
		env, err := envelope.Parse(m.Manifest)
		w.must(err)
		if env.Hash != anna.manifest || m.Receipt == nil {
			t.Fatal("the mirror is not of the newest manifest")
		}
		for _, raw := range m.Leaves {
			leaf, err := policies.ParseLeaf(raw)
			w.must(err)
			var body []byte
			w.must(anna.do("GET", fill(api.PathItem, anna.owner(), leaf.Hash()), nil, &body))
			if !bytes.Equal(body, anna.bodies[leaf.Field]) {
				t.Errorf("%s: another ciphertext", leaf.Field)
			}
		}
		var chain api.Chain
		w.must(anna.do("GET", fill(api.PathChain, anna.owner())+"?after=1", nil, &chain))
		if uint64(len(chain.Documents)) != anna.seq-1 || chain.More {
			t.Fatalf("%d documents after the first of %d", len(chain.Documents), anna.seq)
		}
		last, err := envelope.Parse(chain.Documents[len(chain.Documents)-1])
		w.must(err)
		if last.Hash != anna.prev {
			t.Error("the chain does not end with the newest document")
		}
		var h vaultapi.History
		w.must(anna.do("GET", fill(api.PathHistory, anna.owner())+"?limit=5", nil, &h))
		if len(h.Entries) != 5 || h.Before == 0 {
			t.Errorf("%d entries, before %d", len(h.Entries), h.Before)
		}
	})
	t.Run("all of it after a restart", func(t *testing.T) {
		w.close()
		w.open()
		anna.logIn()
		acme.logIn()
		acme.openSession()
		if got := outcome(t, acme, item(anna, "phone.mobile")); got != policies.CodeRevoked {
			t.Errorf("got %s, want %s", got, policies.CodeRevoked)
		}
		anna.publish([]api.Item{anna.set("name", "Anna Schmidt")})
	})
}

func TestLogin(t *testing.T) {
	w := newWorld(t, loose)
	anna := w.member(policies.KindPerson)
	path := fill(api.PathMirror, anna.owner())
	challenge := func() *api.LoginChallenge {
		t.Helper()
		var c api.LoginChallenge
		w.must(anna.open("POST", api.PathChallenges, api.ChallengeRequest{Subject: anna.id, Key: anna.key.Public()}, &c))
		return &c
	}
	answer := func(id policies.DocumentID, proof []byte) error {
		return anna.open("POST", api.PathLogins, api.LoginAnswer{ID: id, Proof: proof}, nil)
	}
	t.Run("one answer to a challenge", func(t *testing.T) {
		c := challenge()
		good := anna.answer(c, anna.host())
		w.must(answer(c.ID, good))
		wantCode(t, answer(c.ID, good), policies.CodeUnauthorized)
		c = challenge()
		wantCode(t, answer(c.ID, make([]byte, 32)), policies.CodeUnauthorized)
		wantCode(t, answer(c.ID, anna.answer(c, anna.host())), policies.CodeUnauthorized)
	})
	t.Run("an answer for another server", func(t *testing.T) {
		c := challenge()
		wantCode(t, answer(c.ID, anna.answer(c, "storefront.example:443")), policies.CodeUnauthorized)
	})
	t.Run("an answer of somebody else", func(t *testing.T) {
		eve := w.member(policies.KindPerson)
		c := challenge()
		eve.key = anna.key
		wantCode(t, answer(c.ID, eve.answer(c, anna.host())), policies.CodeUnauthorized)
	})
	t.Run("a challenge under another name", func(t *testing.T) {
		r := anna.request("POST", api.PathChallenges, api.ChallengeRequest{Subject: anna.id, Key: anna.key.Public()})
		r.Host = "storefront.example"
		wantCode(t, w.send(r, nil), policies.CodeUnauthorized)
	})
	t.Run("an old challenge", func(t *testing.T) {
		c := challenge()
		w.front.now = func() time.Time { return time.Now().Add(challengeLifetime + time.Second) }
		defer func() { w.front.now = time.Now }()
		wantCode(t, answer(c.ID, anna.answer(c, anna.host())), policies.CodeUnauthorized)
	})
	t.Run("nobody", func(t *testing.T) {
		wantCode(t, anna.open("POST", api.PathChallenges, api.ChallengeRequest{Subject: policies.IdentityID{1}, Key: anna.key.Public()}, nil), policies.CodeNotFound)
		wantCode(t, anna.open("POST", api.PathChallenges, api.ChallengeRequest{Subject: anna.id}, nil), policies.CodeMalformed)
	})
	t.Run("a request sent twice", func(t *testing.T) {
		r := anna.request("GET", path, nil)
		w.must(w.send(r.Clone(t.Context()), nil))
		wantCode(t, w.send(r.Clone(t.Context()), nil), policies.CodeReplay)
	})
	t.Run("a request that was changed", func(t *testing.T) {
		for name, change := range map[string]func(*http.Request){
			"path":      func(r *http.Request) { r.URL.Path = api.PathReaderGrants },
			"query":     func(r *http.Request) { r.URL.RawQuery = "author=" + anna.id.String() },
			"method":    func(r *http.Request) { r.Method, r.URL.Path = "POST", api.PathRelationships },
			"authority": func(r *http.Request) { r.Host = "storefront.example" },
			"port":      func(r *http.Request) { r.Host = "127.0.0.1:1" },
			"body":      func(r *http.Request) { r.Method, r.URL.Path = "POST", fill(api.PathManifests, anna.owner()) },
			"no digest": func(r *http.Request) { r.Header.Del("Content-Digest") },
			"no sig":    func(r *http.Request) { r.Header.Del("Signature") },
			"no input":  func(r *http.Request) { r.Header.Del("Signature-Input") },
			"twice":     func(r *http.Request) { r.Header.Add("Signature", r.Header.Get("Signature")) },
			"bearer":    func(r *http.Request) { r.Header = http.Header{"Authorization": {"Bearer " + anna.login.String()}} },
		} {
			r := anna.request("GET", path, nil)
			change(r)
			if err := w.send(r, nil); !errors.Is(err, policies.CodeUnauthorized) {
				t.Errorf("%s changed: %v", name, err)
			}
		}
	})
	t.Run("an old request", func(t *testing.T) {
		r := anna.request("GET", path, nil)
		w.front.now = func() time.Time { return time.Now().Add(3 * time.Minute) }
		defer func() { w.front.now = time.Now }()
		wantCode(t, w.send(r, nil), policies.CodeUnauthorized)
	})
	t.Run("an old login", func(t *testing.T) {
		w.front.now = func() time.Time { return time.Now().Add(16 * time.Minute) }
		defer func() { w.front.now = time.Now }()
		wantCode(t, anna.do("GET", path, nil, nil), policies.CodeUnauthorized)
	})
	t.Run("logins of one identity are bounded", func(t *testing.T) {
		anna.logIn()
		first := *anna
		for range loginsOfOne {
			anna.logIn()
		}
		wantCode(t, first.do("GET", path, nil, nil), policies.CodeUnauthorized)
		w.must(anna.do("GET", path, nil, nil))
	})
}

func TestWhoseItIs(t *testing.T) {
	w := newWorld(t, loose)
	anna, eve := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "Anna")})
	leaf := anna.leaves["name"]
	g, sub := anna.grant(eve, "billing", "name")
	env := anna.sign()
	session, err := policies.Sign(anna.signer, &policies.Session{
		Header: policies.NewHeader("session", time.Now()), Audience: w.doc.Vault, Reader: policies.ReaderID(anna.id), Key: anna.key.Public(),
		NotBefore: time.Now().Unix(), Expires: time.Now().Unix() + 60, Ciphertext: make([]byte, policies.KEMCiphertextSize),
	})
	w.must(err)
	for name, c := range map[string]struct {
		method, path string
		body         any
	}{
		"manifest":     {"POST", fill(api.PathManifests, anna.owner()), api.Publication{Manifest: env.Raw}},
		"mirror":       {"GET", fill(api.PathMirror, anna.owner()), nil},
		"item":         {"GET", fill(api.PathItem, anna.owner(), leaf.Hash()), nil},
		"chain":        {"GET", fill(api.PathChain, anna.owner()), nil},
		"grant":        {"POST", fill(api.PathGrants, anna.owner()), sub},
		"revocation":   {"POST", fill(api.PathRevocations, anna.owner()), anna.revocation(g, "name")},
		"history":      {"GET", fill(api.PathHistory, anna.owner()), nil},
		"freeze":       {"GET", fill(api.PathFreeze, anna.owner()), nil},
		"session":      {"POST", api.PathSessions, session.Raw},
		"own path":     {"POST", fill(api.PathGrants, eve.owner()), sub},
		"relationship": {"POST", api.PathRelationships, relationship(anna, eve).Raw},
	} {
		calls := w.vault.calls["grant"] + w.vault.calls["revocation"] + w.vault.calls["session"]
		if err := eve.do(c.method, c.path, c.body, nil); !errors.Is(err, policies.CodeUnauthorized) {
			t.Errorf("%s with another's login: %v", name, err)
		}
		if err := eve.open(c.method, c.path, c.body, nil); !errors.Is(err, policies.CodeUnauthorized) {
			t.Errorf("%s without a login: %v", name, err)
		}
		if now := w.vault.calls["grant"] + w.vault.calls["revocation"] + w.vault.calls["session"]; now != calls {
			t.Errorf("%s: the vault was asked", name)
		}
	}
	// An author who is not the owner fills no disk.
	forged, err := policies.Sign(eve.signer, &policies.Manifest{
		Header: policies.NewHeader("manifest", time.Now()), Audience: w.doc.Vault, Owner: anna.owner(), Author: policies.AuthorID(eve.id),
		Link: policies.Link{Seq: 1, Prev: policies.Hash{}}, Version: 1, TreeSize: 0, Root: policies.Hash{1},
	})
	w.must(err)
	asked := w.vault.calls["manifest"]
	wantCode(t, eve.do("POST", fill(api.PathManifests, anna.owner()), api.Publication{Manifest: forged.Raw}, nil), policies.CodeNoWriteGrant)
	if w.vault.calls["manifest"] != asked {
		t.Error("the vault was asked about a stranger's manifest, after it was written to this disk")
	}
}

func relationship(reader, owner *party) *envelope.Envelope {
	env, err := policies.Sign(reader.signer, &policies.Relationship{
		Header: policies.NewHeader("relationship", time.Now()), Audience: reader.w.doc.Vault, Reader: policies.ReaderID(reader.id), Owner: owner.owner(),
		KEMKey: reader.root.ReaderKey(owner.owner(), policies.Nonce{1}).Public(), Nonce: policies.Nonce{1},
	})
	reader.w.must(err)
	return env
}

func TestRelationships(t *testing.T) {
	w := newWorld(t, loose)
	anna, ben, acme := w.member(policies.KindPerson), w.member(policies.KindPerson), w.member(policies.KindBusiness)
	first, second, other := relationship(acme, anna), relationship(acme, anna), relationship(acme, ben)
	for _, e := range []*envelope.Envelope{first, second, second, other} {
		w.must(acme.do("POST", api.PathRelationships, e.Raw, nil))
	}
	list := func(p *party, query string) (out []policies.Hash) {
		t.Helper()
		var l api.Envelopes
		w.must(p.do("GET", api.PathRelationships+query, nil, &l))
		for _, raw := range l.Envelopes {
			e, err := envelope.Parse(raw)
			w.must(err)
			out = append(out, e.Hash)
		}
		return out
	}
	if got := list(anna, ""); len(got) != 2 || got[0] != policies.Hash(first.Hash) || got[1] != policies.Hash(second.Hash) {
		t.Errorf("the owner sees %v, want both, the newest last", got)
	}
	if got := list(acme, ""); len(got) != 3 {
		t.Errorf("the reader sees %d, want 3", len(got))
	}
	var last *envelope.Envelope
	for range relationshipsOfPair {
		last = relationship(acme, anna)
		w.must(acme.do("POST", api.PathRelationships, last.Raw, nil))
	}
	if got := list(anna, ""); len(got) != relationshipsOfPair || got[len(got)-1] != policies.Hash(last.Hash) {
		t.Errorf("the owner sees %d, want the last %d", len(got), relationshipsOfPair)
	}
	if got := list(acme, "?with="+ben.id.String()); len(got) != 1 || got[0] != policies.Hash(other.Hash) {
		t.Errorf("with one owner: %v", got)
	}
	if got := list(w.member(policies.KindPerson), ""); len(got) != 0 {
		t.Errorf("a stranger sees %d", len(got))
	}
	// A relationship must verify: this one is signed by somebody else.
	forged, err := policies.Sign(anna.signer, &policies.Relationship{
		Header: policies.NewHeader("relationship", time.Now()), Audience: w.doc.Vault, Reader: policies.ReaderID(acme.id), Owner: anna.owner(),
		KEMKey: make([]byte, policies.KEMPublicKeySize), Nonce: policies.Nonce{1},
	})
	w.must(err)
	wantCode(t, acme.do("POST", api.PathRelationships, forged.Raw, nil), policies.CodeSignature)
}

func TestRoutes(t *testing.T) {
	w := newWorld(t, loose)
	anna := w.member(policies.KindPerson)
	for _, r := range routes {
		path := strings.NewReplacer("{owner}", anna.id.String(), "{id}", anna.id.String(), "{leaf}", policies.Hash{1}.String()).Replace(r.path)
		if r.method == "POST" && r.body > 0 { // one takes none
			for name, body := range map[string][]byte{
				"nothing":  {},
				"no JSON":  []byte("hello"),
				"unknown":  []byte(`{"colour":"red"}`),
				"trailing": []byte(`{}{}`),
				"longest":  bytes.Repeat([]byte(" "), int(r.body)),
			} {
				if err := anna.do(r.method, path, body, nil); !errors.Is(err, policies.CodeMalformed) {
					t.Errorf("%s %s, %s: %v", r.method, r.path, name, err)
				}
			}
			req := anna.request(r.method, path, bytes.Repeat([]byte(" "), int(r.body)+1))
			if err := w.send(req, nil); !errors.Is(err, policies.CodeTooLarge) {
				t.Errorf("%s %s, too long a body: %v", r.method, r.path, err)
			}
			req = anna.request(r.method, path, bytes.Repeat([]byte(" "), int(r.body)+1))
			req.ContentLength = -1 // chunked
			if err := w.send(req, nil); !errors.Is(err, policies.CodeTooLarge) {
				t.Errorf("%s %s, too long a chunked body: %v", r.method, r.path, err)
			}
		}
		if bad := strings.Replace(path, anna.id.String(), "anna", 1); bad != path {
			if err := anna.do(r.method, bad, []byte("{}"), nil); err == nil {
				t.Errorf("%s %s with a bad id: accepted", r.method, r.path)
			}
		}
	}
	status := func(method, path string) (int, string, http.Header) {
		req, _ := http.NewRequest(method, w.server.URL+path, nil)
		resp, err := http.DefaultClient.Do(req)
		w.must(err)
		defer resp.Body.Close()
		var p problem.Problem
		var buf bytes.Buffer
		buf.ReadFrom(resp.Body)
		if err := json.Unmarshal(buf.Bytes(), &p); err != nil || p.Status != resp.StatusCode || resp.Header.Get("Content-Type") != problem.ContentType {
			t.Errorf("%s %s: no problem document: %s", method, path, buf.String())
		}
		return resp.StatusCode, string(p.Code), resp.Header
	}
	if s, code, _ := status("GET", "/v1/nothing"); s != 404 || code != "not_found" {
		t.Errorf("unknown path: %d %s", s, code)
	}
	if s, _, h := status("DELETE", api.PathIdentities); s != 405 || h.Get("Allow") == "" {
		t.Errorf("wrong method: %d, Allow %q", s, h.Get("Allow"))
	}
	if s, _, _ := status("GET", "/v1/vault/"); s != 404 {
		t.Errorf("trailing slash: %d", s)
	}
	// Open routes.
	var doc, identity []byte
	w.must(anna.open("GET", api.PathVault, nil, &doc))
	if env, err := envelope.Parse(doc); err != nil || env.Type != "vault" {
		t.Errorf("vault document: %v", err)
	}
	w.must(anna.open("GET", fill(api.PathIdentity, anna.id), nil, &identity))
	if !bytes.Equal(identity, anna.identity.Raw) {
		t.Error("another identity")
	}
	wantCode(t, anna.open("GET", fill(api.PathIdentity, policies.IdentityID{1}), nil, nil), policies.CodeNotFound)
	var h api.Health
	w.must(anna.open("GET", api.PathHealth, nil, &h))
	if h.Status != "ok" {
		t.Errorf("health: %+v", h)
	}
	for _, v := range []vaultapi.Health{{Status: "degraded", Reason: "a file"}, {Status: "stopped", Reason: "a log"}} {
		w.vault.mu.Lock()
		w.vault.health = &v
		w.vault.mu.Unlock()
		w.must(anna.open("GET", api.PathHealth, nil, &h))
		if h.Status != "degraded" || !strings.Contains(h.Reason, v.Reason) || strings.Contains(h.Reason, "no keys") != (v.Status == "stopped") {
			t.Errorf("the vault's health is %+v, the storefront's %+v", v, h)
		}
	}
	w.vault.mu.Lock()
	w.vault.health = nil
	w.vault.mu.Unlock()
	// Queries.
	for _, q := range []string{
		fill(api.PathChain, anna.owner()) + "?after=-1", fill(api.PathHistory, anna.owner()) + "?limit=100000", fill(api.PathHistory, anna.owner()) + "?before=x",
		api.PathReaderGrants + "?after=zz", api.PathRelationships + "?with=anna", fill(api.PathMirror, anna.owner()) + "?author=anna",
	} {
		wantCode(t, anna.do("GET", q, nil, nil), policies.CodeMalformed)
	}
}

func TestIdentities(t *testing.T) {
	w := newWorld(t, loose)
	p := w.newParty(policies.KindPerson)
	for range 2 { // again is harmless, and so is another rendering of the same document
		w.must(p.open("POST", api.PathIdentities, p.identity.Raw, nil))
		p.identity.Raw = append([]byte(" "), p.identity.Raw...)
	}
	other := w.newParty(policies.KindPerson)
	payload := bytes.Replace(other.identity.Payload, []byte(`"kind":"person"`), []byte(`"kind":"business"`), 1)
	forged := bytes.Replace(other.identity.Raw, []byte(base64.StdEncoding.EncodeToString(other.identity.Payload)), []byte(base64.StdEncoding.EncodeToString(payload)), 1)
	calls := w.vault.calls["identity"]
	wantCode(t, p.open("POST", api.PathIdentities, forged, nil), policies.CodeSignature)
	if w.vault.calls["identity"] != calls {
		t.Error("an identity that does not certify itself reached the vault")
	}
}

func TestPublishRefused(t *testing.T) {
	w := newWorld(t, loose)
	anna, ben := w.member(policies.KindPerson), w.member(policies.KindPerson)
	anna.publish([]api.Item{anna.set("name", "Anna"), anna.set("city", "Ulm")})
	before := anna.manifest
	good := anna.set("name", "Anna B.")
	env := anna.sign()
	foreign := ben.set("name", "Ben")
	bent := bytes.Clone(good.Ciphertext)
	bent[0] ^= 1
	noPoint := anna.leaves["name"]
	for i := range 32 {
		noPoint.Capsule[1+i] = 0xff
	}
	for name, c := range map[string]struct {
		p    api.Publication
		code policies.Code
	}{
		"no items":              {api.Publication{Manifest: env.Raw}, policies.CodeProof},
		"another value":         {api.Publication{Manifest: env.Raw, Items: []api.Item{{Leaf: good.Leaf, Ciphertext: bent}}}, policies.CodeLeaf},
		"no ciphertext":         {api.Publication{Manifest: env.Raw, Items: []api.Item{{Leaf: good.Leaf}}}, policies.CodeBehind},
		"another owner's leaf":  {api.Publication{Manifest: env.Raw, Items: []api.Item{foreign}}, policies.CodeLeaf},
		"no point":              {api.Publication{Manifest: env.Raw, Items: []api.Item{{Leaf: noPoint.Bytes(), Ciphertext: good.Ciphertext}}}, policies.CodePoint},
		"twice":                 {api.Publication{Manifest: env.Raw, Items: []api.Item{good, good}}, policies.CodeMalformed},
		"set and removed":       {api.Publication{Manifest: env.Raw, Items: []api.Item{good}, Removed: []policies.Field{"name"}}, policies.CodeMalformed},
		"removed besides":       {api.Publication{Manifest: env.Raw, Items: []api.Item{good}, Removed: []policies.Field{"city"}}, policies.CodeProof},
		"no field name":         {api.Publication{Manifest: env.Raw, Items: []api.Item{good}, Removed: []policies.Field{"A"}}, policies.CodeMalformed},
		"a leaf cut short":      {api.Publication{Manifest: env.Raw, Items: []api.Item{{Leaf: good.Leaf[:50], Ciphertext: good.Ciphertext}}}, policies.CodeMalformed},
		"a grant as a manifest": {api.Publication{Manifest: anna.identity.Raw, Items: []api.Item{good}}, policies.CodeMalformed},
	} {
		calls := w.vault.calls["manifest"]
		if err := anna.do("POST", fill(api.PathManifests, anna.owner()), c.p, nil); !errors.Is(err, c.code) {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
		if w.vault.calls["manifest"] != calls {
			t.Errorf("%s: the vault was asked", name)
		}
	}
	// The vault refuses what is not signed by the author; what was current stays so, and the author goes on.
	anna.signer, ben.signer = ben.signer, anna.signer
	forged := anna.sign()
	anna.signer, ben.signer = ben.signer, anna.signer
	wantCode(t, anna.post(forged, []api.Item{good}), policies.CodeSignature)
	if sh, err := w.front.shelf(t.Context(), own(anna.owner())); err != nil || sh.current.hash != before {
		t.Fatalf("a refused manifest became current: %v", err)
	}
	w.must(anna.post(env, []api.Item{good}))
	anna.signed(env)
}

func clone[K comparable, V any](m map[K]V) map[K]V {
	out := make(map[K]V, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

var errInjected = errors.New("injected")

// TestPublishCrash fails a publication at each step, as a crash or a lost connection would, and then goes on in one of two ways: the same
// process, or a new one on what was committed. Nothing may be lost, and nobody may read what does not count.
func TestPublishCrash(t *testing.T) {
	lostAnswer := fmt.Errorf("connection lost: %w", policies.CodeUnavailable)
	nth := func(n int) func([]store.Change) error {
		return func([]store.Change) error {
			if n--; n == 0 {
				return errInjected
			}
			return nil
		}
	}
	down := false
	failing := func(string) error {
		if down {
			return lostAnswer
		}
		return nil
	}
	for name, c := range map[string]struct {
		arm     func(*world)
		counted bool // the vault's head has moved
	}{
		"before items and pending are written": {func(w *world) { w.store.set(nth(1), nil) }, false},
		"after items and pending are written":  {func(w *world) { w.store.set(nil, nth(1)) }, false},
		"before the vault is asked":            {func(w *world) { w.vault.set(failing, nil) }, false},
		"after the vault accepted":             {func(w *world) { w.vault.set(nil, failing) }, true},
		"before it is made current":            {func(w *world) { w.store.set(nth(2), nil) }, true},
		"after it is made current":             {func(w *world) { w.store.set(nil, nth(2)) }, true},
	} {
		for _, restart := range []bool{false, true} {
			for _, resend := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/restart=%v/resend=%v", name, restart, resend), func(t *testing.T) {
					w := newWorld(t, loose)
					anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
					anna.publish([]api.Item{anna.set("name", "old"), anna.set("city", "Ulm")})
					g := anna.give(acme, "billing", "name", "city")
					acme.openSession()
					mustRead(t, anna, acme, g, "name", "old")

					items := []api.Item{anna.set("name", "new")}
					env := anna.sign()
					down = true
					c.arm(w)
					if err := anna.post(env, items); err == nil {
						t.Fatal("the publication that failed was acknowledged")
					}
					down = false
					w.store.set(nil, nil)
					w.vault.set(nil, nil)
					if restart {
						w.crash()
						anna.logIn()
						acme.logIn()
						acme.openSession()
					}
					if resend {
						w.must(anna.post(env, items))
						anna.signed(env)
						mustRead(t, anna, acme, g, "name", "new")
						mustRead(t, anna, acme, g, "city", "Ulm")
						anna.publish([]api.Item{anna.set("name", "newest")})
						mustRead(t, anna, acme, g, "name", "newest")
						return
					}
					// Without the client: readers see the old value or, if it was pending or counts, the new one; never an error.
					out, answer, err := acme.read("billing", nil, item(anna, "name"))
					w.must(err)
					got, err := acme.value(anna, g, out, answer, 0)
					if err != nil || got != "new" && (c.counted || got != "old") {
						t.Fatalf("read %q, %v", got, err)
					}
				})
			}
		}
	}
}

func TestPendingIsSentAtStart(t *testing.T) {
	w := newWorld(t, loose)
	anna := w.member(policies.KindPerson)
	w.vault.set(func(string) error { return policies.CodeUnavailable }, nil)
	items := []api.Item{anna.set("name", "Anna")}
	env := anna.sign()
	wantCode(t, anna.post(env, items), policies.CodeUnavailable)
	w.vault.set(nil, nil)
	w.crash()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		head, err := w.vault.Vault.Head(anna.owner(), policies.AuthorID(anna.id))
		w.must(err)
		if head.Manifest == env.Hash {
			break
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatal("the pending manifest was not sent")
		}
	}
}

func TestSecondDevice(t *testing.T) {
	w := newWorld(t, loose)
	anna := w.member(policies.KindPerson)
	anna.publish([]api.Item{anna.set("name", "Anna")})
	phone := *anna
	phone.leaves, phone.bodies = clone(anna.leaves), clone(anna.bodies)
	anna.publish([]api.Item{anna.set("city", "Ulm")})

	items := []api.Item{phone.set("name", "Anna B.")}
	env := phone.sign()
	err := phone.post(env, items)
	wantCode(t, err, policies.CodeChain)
	p := problem.Of(err)
	if p.Receipt == nil {
		t.Fatal("no receipt of the newest document")
	}
	if _, _, _, err := p.Receipt.Verify(w.doc, anna.prev); err != nil {
		t.Errorf("the receipt is not of the newest document: %v", err)
	}
	// It rebases and goes on.
	phone.seq, phone.prev, phone.version, phone.manifest = anna.seq, anna.prev, anna.version, anna.manifest
	phone.leaves["city"], phone.bodies["city"] = anna.leaves["city"], anna.bodies["city"]
	phone.publish(items)
}

// TestDisplaced has a manifest pending here while another document takes its place at the vault over the second route.
func TestDisplaced(t *testing.T) {
	w := newWorld(t, loose)
	anna := w.member(policies.KindPerson)
	anna.publish([]api.Item{anna.set("name", "Anna")})
	k := own(anna.owner())

	w.vault.set(func(string) error { return policies.CodeUnavailable }, nil)
	wantCode(t, anna.post(anna.sign(), nil), policies.CodeUnavailable)
	w.vault.set(nil, nil)
	sub := anna.revocation(&policies.Grant{Header: policies.Header{ID: policies.DocumentID{5}}}, "name")
	env, err := envelope.Parse(sub.Envelope)
	w.must(err)

	// A refusal alone does not drop it: only the vault's proof does.
	w.vault.set(func(string) error { return policies.CodeChain }, nil)
	var m api.Mirror
	w.must(anna.do("GET", fill(api.PathMirror, anna.owner()), nil, &m))
	if sh, _ := w.front.shelf(t.Context(), k); sh.pending == nil {
		t.Fatal("dropped on the vault's bare word")
	}
	w.vault.set(nil, nil)

	// The other document takes its place; whether the vault takes a revocation of nothing decides which one it is.
	if _, err := w.vault.Vault.Submit(t.Context(), sub); err != nil {
		other := *anna
		other.leaves = clone(anna.leaves)
		other.set("name", "over the second route")
		env = other.sign()
		if _, err := w.vault.Vault.Submit(t.Context(), vaultapi.Submission{Envelope: env.Raw}); err != nil {
			t.Fatal(err)
		}
	}
	wantErr := anna.do("GET", fill(api.PathMirror, anna.owner()), nil, &m)
	sh, err := w.front.shelf(t.Context(), k)
	w.must(err)
	if sh.pending != nil {
		t.Fatal("still pending though another document has its place")
	}
	if env.Type == "manifest" {
		wantCode(t, wantErr, policies.CodeBehind)
	}
}

func TestBehind(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "Anna"), anna.set("city", "Ulm")})
	anna.give(acme, "billing", "name", "city")

	// All of the storefront's data is gone; the vault has its own.
	w.close()
	if err := os.RemoveAll(filepath.Join(w.dir, "data")); err != nil {
		t.Fatal(err)
	}
	w.open()
	for _, p := range []*party{anna, acme} {
		w.must(p.open("POST", api.PathIdentities, p.identity.Raw, nil))
		p.logIn()
	}
	acme.openSession()
	wantCode(t, anna.do("GET", fill(api.PathMirror, anna.owner()), nil, nil), policies.CodeBehind)
	items := []api.Item{anna.set("name", "Anna B.")}
	env := anna.sign()
	err := anna.post(env, items)
	wantCode(t, err, policies.CodeBehind)
	if p := problem.Of(err); p.Receipt == nil {
		t.Error("no receipt of the vault's head")
	} else if _, _, _, err := p.Receipt.Verify(w.doc, anna.manifest); err != nil {
		t.Errorf("the receipt is not of the vault's head: %v", err)
	}
	w.must(anna.post(env, anna.all()))
	anna.signed(env)

	// The grant is not known here any more; the vault answers for it, and the owner sends it again.
	if got := outcome(t, acme, item(anna, "city")); got != policies.CodeNoGrant {
		t.Errorf("got %s, want %s", got, policies.CodeNoGrant)
	}
}

func TestItemsLost(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "Anna"), anna.set("city", "Ulm")})
	g := anna.give(acme, "billing", "name")
	leaf := anna.leaves["city"]
	w.must(w.db.Commit(t.Context(), store.Change{Key: leafKey(anna.owner(), leaf.Hash()), Delete: true}))
	w.crash()
	anna.logIn()
	acme.logIn()
	acme.openSession()
	out, _, err := acme.read("billing", nil, item(anna, "name"))
	w.must(err)
	if out.Items[0].Outcome == policies.CodeReleased {
		t.Error("released from a tree that is not whole")
	}
	wantCode(t, anna.post(anna.sign(), nil), policies.CodeBehind)
	env := anna.sign()
	w.must(anna.post(env, anna.all()))
	anna.signed(env)
	mustRead(t, anna, acme, g, "name", "Anna")
}

func TestCiphertextLost(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	current := anna.publish([]api.Item{anna.set("name", "Anna"), anna.set("city", "Ulm")})
	g := anna.give(acme, "billing", "name")
	acme.openSession()
	leaf := anna.leaves["name"]
	k := own(anna.owner())
	w.must(w.db.Commit(t.Context(), store.Change{Key: k.ciphertext(leaf.CiphertextHash), Delete: true}))
	out, _, err := acme.read("billing", nil, item(anna, "name"))
	w.must(err)
	if out.Items[0].Outcome == policies.CodeReleased {
		t.Error("released without a ciphertext")
	}
	rotated := anna.rotate("name")
	wantCode(t, anna.post(anna.sign(), []api.Item{rotated}), policies.CodeBehind)
	anna.leaves["name"] = leaf
	w.must(anna.post(current, anna.all()))
	mustRead(t, anna, acme, g, "name", "Anna")
	anna.publish([]api.Item{anna.rotate("name")})
}

func TestCollect(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "first"), anna.set("city", "Ulm")})
	old := anna.leaves["name"]
	oldCity := anna.leaves["city"]
	anna.publish([]api.Item{anna.set("name", "second"), anna.rotate("city")})
	g := anna.give(acme, "billing", "name", "city")
	acme.openSession()
	k := own(anna.owner())
	has := func(key []byte) bool {
		_, err := w.db.Get(t.Context(), key)
		return err == nil
	}
	if !has(leafKey(anna.owner(), old.Hash())) || !has(k.ciphertext(old.CiphertextHash)) {
		t.Fatal("collected at once: reads on their way would fail")
	}
	// While something is pending its items stay too.
	w.vault.set(func(string) error { return policies.CodeUnavailable }, nil)
	items := []api.Item{anna.set("name", "third")}
	pending := anna.leaves["name"]
	wantCode(t, anna.post(anna.sign(), items), policies.CodeUnavailable)
	w.must(w.front.collectSlot(t.Context(), k, time.Now()))
	w.vault.set(nil, nil)
	for _, l := range []policies.Leaf{old, oldCity} {
		if has(leafKey(anna.owner(), l.Hash())) {
			t.Errorf("%s version %d epoch %d is still there", l.Field, l.Version, l.Epoch)
		}
	}
	if has(k.ciphertext(old.CiphertextHash)) {
		t.Error("the replaced ciphertext is still there")
	}
	city := anna.leaves["city"]
	for _, l := range []policies.Leaf{pending, city} {
		if !has(leafKey(anna.owner(), l.Hash())) || !has(k.ciphertext(l.CiphertextHash)) {
			t.Errorf("%s version %d epoch %d was collected", l.Field, l.Version, l.Epoch)
		}
	}
	mustRead(t, anna, acme, g, "name", "third")
	mustRead(t, anna, acme, g, "city", "Ulm")
	w.must(w.front.collectSlot(t.Context(), k, time.Now()))
	if has(k.work()) {
		t.Error("the hint that there is work is still there")
	}
	mustRead(t, anna, acme, g, "name", "third")
}

func TestGrants(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "Anna"), anna.set("city", "Ulm")})
	acme.openSession()
	list := func(query string) (out api.ReaderGrants) {
		t.Helper()
		w.must(acme.do("GET", api.PathReaderGrants+query, nil, &out))
		return out
	}

	t.Run("acknowledged by the vault, not indexed", func(t *testing.T) {
		g, sub := anna.grant(acme, "billing", "name")
		w.store.set(func([]store.Change) error { return errInjected }, nil)
		if err := anna.submit(api.PathGrants, sub); err == nil {
			t.Fatal("acknowledged")
		}
		w.store.set(nil, nil)
		w.must(anna.submit(api.PathGrants, sub))
		w.must(anna.submit(api.PathGrants, sub))
		mustRead(t, anna, acme, g, "name", "Anna")
		if l := list(""); len(l.Grants) != 1 || l.After != "" {
			t.Errorf("%d grants listed, after %q", len(l.Grants), l.After)
		}
	})
	t.Run("of one owner", func(t *testing.T) {
		ben := w.member(policies.KindPerson)
		ben.publish([]api.Item{ben.set("name", "Ben")})
		ben.give(acme, "billing", "name")
		all, hers, his := list(""), list("?owner="+anna.owner().String()), list("?owner="+ben.owner().String())
		if len(all.Grants) != 2 || len(hers.Grants) != 1 || len(his.Grants) != 1 || bytes.Equal(hers.Grants[0], his.Grants[0]) {
			t.Errorf("%d grants of all, %d of one, %d of the other", len(all.Grants), len(hers.Grants), len(his.Grants))
		}
		wantCode(t, acme.do("GET", api.PathReaderGrants+"?owner=anna", nil, nil), policies.CodeMalformed)
		cursor := "&after=" + anna.owner().String() + strings.Repeat("0", 16) // of another list
		wantCode(t, acme.do("GET", api.PathReaderGrants+"?owner="+ben.owner().String()+cursor, nil, nil), policies.CodeMalformed)
	})
	t.Run("a grant for another purpose does not hide this one", func(t *testing.T) {
		anna.give(acme, "advertising", "name")
		if got := outcome(t, acme, item(anna, "name")); got != policies.CodeReleased {
			t.Errorf("got %s", got)
		}
	})
	t.Run("a newer grant that ended does not hide an older one", func(t *testing.T) {
		g := anna.give(acme, "billing", "name")
		w.must(anna.submit(api.PathRevocations, anna.revocation(g, "name")))
		if got := outcome(t, acme, item(anna, "name")); got != policies.CodeReleased {
			t.Errorf("got %s", got)
		}
	})
	t.Run("revoked, not indexed", func(t *testing.T) {
		g := anna.give(acme, "billing", "city")
		sub := anna.revocation(g, "city")
		w.store.set(func([]store.Change) error { return store.ErrFull }, nil)
		w.must(anna.submit(api.PathRevocations, sub)) // the owner learns that it has stopped all the same
		w.store.set(nil, nil)
		if got := outcome(t, acme, item(anna, "city")); got != policies.CodeRevoked {
			t.Errorf("got %s", got)
		}
		before := len(list("").Grants)
		w.must(anna.submit(api.PathRevocations, sub))
		if after := len(list("").Grants); after != before-1 {
			t.Errorf("%d grants listed, want %d", after, before-1)
		}
	})
	t.Run("indexed after its revocation", func(t *testing.T) {
		g, sub := anna.grant(acme, "billing", "city")
		if _, err := w.vault.Vault.Submit(t.Context(), sub); err != nil { // over the second route
			t.Fatal(err)
		}
		env, err := envelope.Parse(sub.Envelope)
		w.must(err)
		anna.signed(env)
		w.must(anna.submit(api.PathRevocations, anna.revocation(g, "city")))
		before := len(list("").Grants)
		late := *anna
		w.must(late.submit(api.PathGrants, sub))
		if after := len(list("").Grants); after != before {
			t.Errorf("a grant that ended is listed")
		}
	})
	t.Run("refused", func(t *testing.T) {
		_, sub := anna.grant(acme, "billing", "city")
		sub.Keys[0].Sealed[2000%len(sub.Keys[0].Sealed)] ^= 1
		wantCode(t, anna.submit(api.PathGrants, sub), policies.CodeImport)
		sub.Keys = nil
		wantCode(t, anna.submit(api.PathGrants, sub), policies.CodeMalformed)
	})
}

func TestGrantPages(t *testing.T) {
	w := newWorld(t, loose)
	const n = pageDocuments + 30
	acme := w.member(policies.KindBusiness)
	reader := acme.id
	anna := w.newParty(policies.KindPerson)
	var changes []store.Change
	for i := range n {
		d := &policies.Grant{
			Header: policies.NewHeader("grant", time.Now()), Audience: w.doc.Vault, Owner: policies.OwnerID{byte(i), byte(i >> 8), 1},
			Link: policies.Link{Seq: 1}, Reader: policies.ReaderID(reader), Relationship: policies.Hash{1}, Custody: policies.CustodyResident,
			Rights: []policies.Right{policies.RightRead}, Purpose: "x", NotBefore: 1, Expires: time.Now().Unix() + 60, Ciphertext: make([]byte, policies.KEMCiphertextSize),
			Fields: []policies.GrantedField{{Field: "name", Epoch: 1, Author: policies.AuthorID{1}, Keys: []policies.WrappedKey{{Token: "t", ImportKey: policies.Hash{1}, Path: "p", Digest: policies.Hash{1}}}}},
		}
		if i%50 == 0 {
			d.Expires = time.Now().Unix() - 10
		}
		env, err := policies.Sign(anna.signer, d)
		w.must(err)
		c, err := encodeRecord(key(kindGrant, reader[:], d.Owner[:], policies.U64(1)), 1, grantRecord{Grant: env.Raw})
		w.must(err)
		changes = append(changes, c)
	}
	w.must(w.db.Commit(t.Context(), changes...))
	seen := make(map[string]bool)
	query, pages := "", 0
	for {
		var l api.ReaderGrants
		w.must(acme.do("GET", api.PathReaderGrants+query, nil, &l))
		for _, g := range l.Grants {
			seen[string(g)] = true
		}
		if pages++; l.After == "" || pages > 5 {
			break
		}
		query = "?after=" + l.After
	}
	if want := n - (n+49)/50; len(seen) != want || pages != 2 {
		t.Errorf("%d grants in %d pages, want %d in 2", len(seen), pages, want)
	}
}

// TestNoKeyMaterialIsKept searches everything that was ever written to the store, and the store's files, for a grant's sealed keys.
func TestNoKeyMaterialIsKept(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "Anna")})
	_, sub := anna.grant(acme, "billing", "name")
	w.must(anna.submit(api.PathGrants, sub))
	sealed := sub.Keys[0].Sealed
	var needles [][]byte
	for i := 0; i+48 <= len(sealed); i += 24 {
		part := sealed[i : i+24] // a multiple of 3, so that base64 has it at the same place
		needles = append(needles, part, []byte(base64.StdEncoding.EncodeToString(part)), []byte(hex.EncodeToString(part)))
	}
	search := func(where string, data []byte) {
		for _, n := range needles {
			if bytes.Contains(data, n) {
				t.Fatalf("a part of a sealed key is in %s", where)
			}
		}
	}
	for _, c := range w.store.wrote {
		search("a record", c.Value)
	}
	w.close()
	files := 0
	err := filepath.WalkDir(filepath.Join(w.dir, "data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		data, err := os.ReadFile(path)
		search(path, data)
		return err
	})
	w.must(err)
	if files < 3 || len(needles) < 100 {
		t.Fatalf("searched %d files for %d parts", files, len(needles))
	}
	w.open()
}

func TestReadRefused(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "Anna")})
	anna.give(acme, "billing", "name")
	acme.openSession()
	post := func(env *envelope.Envelope) error {
		return acme.open("POST", api.PathReads, api.Read{Request: env.Raw}, nil)
	}
	good := acme.readRequest("billing", item(anna, "name"))
	w.must(post(good))
	wantCode(t, post(good), policies.CodeReplay)

	calls := len(w.vault.seen)
	stranger := *acme
	stranger.hash = policies.Hash{1}
	wantCode(t, post(stranger.readRequest("billing", item(anna, "name"))), policies.CodeSession)
	old, err := policies.Sign(acme.sessKey, &policies.ReadRequest{
		Header: policies.Header{Type: "read", Suite: policies.Suite, ID: policies.NewDocumentID(), Time: time.Now().Unix() - 500}, Audience: w.doc.Vault,
		Session: acme.hash, Nonce: policies.NewNonce(), Expires: time.Now().Unix() - 400, Purpose: "billing", Items: []policies.ReadItem{item(anna, "name")},
	})
	w.must(err)
	wantCode(t, post(old), policies.CodeExpired)
	wantCode(t, post(anna.identity), policies.CodeMalformed)
	if len(w.vault.seen) != calls {
		t.Error("junk reached the vault")
	}
	// The signature is the vault's to verify.
	forger := *acme
	forger.sessKey = envelope.NewSessionKey()
	wantCode(t, post(forger.readRequest("billing", item(anna, "name"))), policies.CodeSignature)
	if len(w.vault.seen) != calls+1 {
		t.Error("the vault was not asked")
	}
	if got := outcome(t, acme, policies.ReadItem{Owner: policies.OwnerID{1}, Field: "name"}); got != policies.CodeNoGrant && got != policies.CodeHeadMoved {
		t.Errorf("of nobody: %s", got)
	}
	w.vault.reply = func(r vaultapi.Reply) vaultapi.Reply { r.Outcomes = nil; return r }
	wantCode(t, post(acme.readRequest("billing", item(anna, "name"))), policies.CodeUnavailable)
}

func TestHeadMoved(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "Anna")})
	g := anna.give(acme, "billing", "name")
	acme.openSession()

	// The storefront misses the vault's acknowledgement: pending is completed before the read is passed on.
	w.vault.set(nil, func(string) error { return policies.CodeUnavailable })
	items := []api.Item{anna.set("name", "Anna B.")}
	env := anna.sign()
	wantCode(t, anna.post(env, items), policies.CodeUnavailable)
	w.vault.set(nil, nil)
	w.front.now = func() time.Time { return time.Now().Add(2 * retryPending) }
	mustRead(t, anna, acme, g, "name", "Anna B.")
	anna.signed(env)

	// The owner publishes over the second route: the storefront is behind and says so.
	anna.set("name", "Anna C.")
	env = anna.sign()
	if _, err := w.vault.Vault.Submit(t.Context(), vaultapi.Submission{Envelope: env.Raw}); err != nil {
		t.Fatal(err)
	}
	out, answer, err := acme.read("billing", nil, item(anna, "name"))
	w.must(err)
	if answer.Items[0].Outcome != policies.CodeHeadMoved || out.Items[0].Outcome != policies.CodeBehind || out.Items[0].Ciphertext != nil {
		t.Errorf("the vault says %s, the storefront %s", answer.Items[0].Outcome, out.Items[0].Outcome)
	}
	anna.signed(env)
	wantCode(t, anna.post(anna.sign(), nil), policies.CodeBehind)
	last := anna.sign()
	w.must(anna.post(last, anna.all()))
	mustRead(t, anna, acme, g, "name", "Anna C.")
}

// TestFullDiskMidway fills the disk between the vault's acceptance and the storefront's note of it. Readers are served what the vault goes by, not told to
// ask again; the owner is told nothing until it is written down; and nothing of the tree that a restart would find is collected.
func TestFullDiskMidway(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "Anna"), anna.set("city", "Bonn")})
	g := anna.give(acme, "billing", "name", "city")
	acme.openSession()
	was := anna.leaves["name"]
	old := was.Hash()
	commits := 0
	w.store.set(func([]store.Change) error {
		if commits++; commits > 1 { // pending is written, and no more
			return store.ErrFull
		}
		return nil
	}, nil)
	now := time.Now()
	w.front.now = func() time.Time { return now }
	items := []api.Item{anna.set("name", "Anna B.")}
	env := anna.sign()
	wantCode(t, anna.post(env, items), policies.CodeUnavailable)
	anna.signed(env)
	for range 3 {
		mustRead(t, anna, acme, g, "name", "Anna B.")
		mustRead(t, anna, acme, g, "city", "Bonn")
		now = now.Add(2 * retryPending) // each time it is tried to write it down
	}
	wantCode(t, anna.post(env, items), policies.CodeUnavailable)
	if commits < 4 {
		t.Errorf("only %d commits were tried", commits)
	}

	// There is room again, and a restart before it could be written down.
	w.store.set(nil, nil)
	w.front.collectDue(t.Context(), now.Add(2*collectAfter))
	if _, err := w.store.Get(t.Context(), leafKey(anna.owner(), old)); err != nil {
		t.Errorf("a leaf of the tree that the store has as current was collected: %v", err)
	}
	w.crash()
	anna.logIn()
	acme.logIn()
	acme.openSession()
	mustRead(t, anna, acme, g, "name", "Anna B.")
	w.must(anna.post(env, items))
	anna.publish([]api.Item{anna.set("city", "Ulm")})
	mustRead(t, anna, acme, g, "city", "Ulm")
}

func TestFullDisk(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "Anna")})
	g := anna.give(acme, "billing", "name")
	acme.openSession()
	full := fullStore{w.store.Store}
	w.store.mu.Lock()
	w.store.Store = full
	w.store.mu.Unlock()

	err := anna.post(anna.sign(), nil)
	wantCode(t, err, policies.CodeUnavailable)
	if p := problem.Of(err); !strings.Contains(p.Detail, "disk") || p.RetryAfter == 0 {
		t.Errorf("no reason: %+v", p)
	}
	_, sub := anna.grant(acme, "billing", "name")
	wantCode(t, anna.submit(api.PathGrants, sub), policies.CodeUnavailable)
	wantCode(t, anna.open("POST", api.PathIdentities, w.newParty(policies.KindPerson).identity.Raw, nil), policies.CodeUnavailable)
	if n := w.vault.calls["grant"]; n != 1 {
		t.Errorf("the vault was asked for %d grants, want 1", n)
	}
	var h api.Health
	w.must(anna.open("GET", api.PathHealth, nil, &h))
	if h.Status != "degraded" || !strings.Contains(h.Reason, "disk") {
		t.Errorf("health: %+v", h)
	}
	mustRead(t, anna, acme, g, "name", "Anna") // reads go on
	w.must(anna.submit(api.PathRevocations, anna.revocation(g, "name")))
	if got := outcome(t, acme, item(anna, "name")); got != policies.CodeRevoked {
		t.Errorf("got %s", got)
	}
}

// TestNothingIsAcceptedThatMayBeLost: a write that fails can be read all the same, until the store is opened again without it. The vault is not asked to accept a manifest that was written so, by nobody's
// request: its items would be lost.
func TestNothingIsAcceptedThatMayBeLost(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "Anna")})
	g := anna.give(acme, "billing", "name")
	acme.openSession()
	mustRead(t, anna, acme, g, "name", "Anna")

	items := []api.Item{anna.set("name", "Berta")}
	env := anna.sign()
	w.store.set(nil, func([]store.Change) error {
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		w.store.broken = true
		return store.ErrBroken
	})
	head := func() uint64 {
		h, err := adapter{w.vault}.Head(t.Context(), anna.owner(), policies.AuthorID(anna.id))
		w.must(err)
		return h.Version
	}
	before := head()
	wantCode(t, anna.post(env, items), policies.CodeUnavailable)
	for range 3 { // reads would complete what is pending, and so would its owner
		if got := outcome(t, acme, item(anna, "name")); got != policies.CodeReleased {
			t.Errorf("a read: %s", got)
		}
		wantCode(t, anna.post(env, items), policies.CodeUnavailable)
	}
	if got := head(); got != before {
		t.Fatalf("the vault accepted version %d, which may be lost", got)
	}
	w.store.mu.Lock()
	w.store.broken, w.store.after = false, nil
	w.store.mu.Unlock()
	w.crash()
	for _, m := range []*party{anna, acme} {
		m.logIn()
	}
	w.must(anna.post(env, items))
	anna.signed(env)
	acme.openSession()
	mustRead(t, anna, acme, g, "name", "Berta")
}

type fullStore struct{ Store }

func (fullStore) Commit(context.Context, ...store.Change) error { return store.ErrFull }
func (fullStore) Health() error                                 { return store.ErrFull }

// TestConcurrentReads reads while the owner publishes: every answer is a whole one, of some version that counted.
func TestConcurrentReads(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "0"), anna.set("city", "0")})
	g := anna.give(acme, "billing", "name", "city")
	acme.openSession()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	reads := 0
	for range 4 {
		wg.Go(func() {
			last := -1
			for {
				select {
				case <-stop:
					return
				default:
				}
				out, answer, err := acme.read("billing", nil, item(anna, "name"), item(anna, "city"))
				if err != nil {
					t.Error(err)
					return
				}
				if answer.Items[0].Outcome == policies.CodeHeadMoved {
					continue // the reader asks again
				}
				v, err := acme.value(anna, g, out, answer, 0)
				var n int
				if _, scan := fmt.Sscan(v, &n); err != nil || scan != nil || n < last {
					t.Errorf("read %q after %d: %v", v, last, err)
					return
				}
				last = n
				mu.Lock()
				reads++
				mu.Unlock()
			}
		})
	}
	for i := range 15 {
		anna.publish([]api.Item{anna.set("name", fmt.Sprint(i+1))})
	}
	close(stop)
	wg.Wait()
	if reads == 0 {
		t.Error("no read succeeded")
	}
}

func TestLimits(t *testing.T) {
	limits := loose
	limits.OpenRate, limits.OpenBurst = 0.001, 12
	w := newWorld(t, limits)
	anna := w.member(policies.KindPerson) // three open requests
	var err error
	n := 0
	for ; n < 20 && err == nil; n++ {
		err = anna.open("GET", api.PathHealth, nil, nil)
	}
	wantCode(t, err, policies.CodeRateLimited)
	if problem.Of(err).RetryAfter == 0 || n != 10 {
		t.Errorf("after %d requests: %+v", n, problem.Of(err))
	}
	w.must(anna.do("GET", fill(api.PathMirror, anna.owner()), nil, nil)) // the logged-in have a rate of their own
	forged := anna.request("GET", fill(api.PathMirror, anna.owner()), nil)
	forged.Header.Set("Signature", "sallyport=:AAAA:")
	wantCode(t, w.send(forged, nil), policies.CodeRateLimited) // forgers use up their network's

	limits = loose
	limits.LoginRate, limits.LoginBurst = 0.001, 2
	w = newWorld(t, limits)
	anna, ben := w.member(policies.KindPerson), w.member(policies.KindPerson)
	path := fill(api.PathMirror, anna.owner())
	w.must(anna.do("GET", path, nil, nil))
	w.must(anna.do("GET", path, nil, nil))
	wantCode(t, anna.do("GET", path, nil, nil), policies.CodeRateLimited)
	w.must(ben.do("GET", fill(api.PathMirror, ben.owner()), nil, nil))

	limits = loose
	limits.FieldRate, limits.FieldBurst = 0.001, 1000
	w = newWorld(t, limits)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	acme.openSession()
	items := make([]policies.ReadItem, 600)
	for i := range items {
		items[i] = item(anna, "name")
	}
	if _, _, err := acme.read("billing", nil, items...); err != nil {
		t.Fatal(err)
	}
	_, _, err = acme.read("billing", nil, items...)
	wantCode(t, err, policies.CodeRateLimited)

	limits = loose
	limits.Fields, limits.OwnerBytes = 2, 500
	w = newWorld(t, limits)
	anna = w.member(policies.KindPerson)
	three := []api.Item{anna.set("a", "1"), anna.set("b", "2"), anna.set("c", "3")}
	wantCode(t, anna.post(anna.sign(), three), policies.CodeTooLarge)
	delete(anna.leaves, "c")
	anna.publish(three[:2]) // as many as may be

	// The longest value that may be, as all that an owner may have; and a byte more of either.
	longest := anna.set("c", strings.Repeat("x", policies.MaxValue))
	for i, want := range []policies.Code{"", policies.CodeTooLarge, policies.CodeTooLarge} {
		limits = loose
		limits.OwnerBytes = int64(len(longest.Ciphertext))
		if i == 1 {
			limits.OwnerBytes--
		}
		w = newWorld(t, limits)
		anna = w.member(policies.KindPerson)
		big := anna.set("big", strings.Repeat("x", policies.MaxValue))
		if i == 2 {
			w.front.limits.OwnerBytes *= 2
			big.Ciphertext = append(big.Ciphertext, 0)
		}
		switch err := anna.post(anna.sign(), []api.Item{big}); {
		case want == "":
			w.must(err)
		default:
			wantCode(t, err, want)
		}
	}
}

func TestPanicIsAProblem(t *testing.T) {
	w := newWorld(t, loose)
	w.front.now = func() time.Time { panic("planted") }
	defer func() { w.front.now = time.Now }()
	anna := w.newParty(policies.KindPerson)
	wantCode(t, anna.open("GET", api.PathHealth, nil, nil), policies.CodeInternal)
}
