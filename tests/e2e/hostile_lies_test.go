package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/stage"
	vaultapi "github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// Exit codes of the sallyport command.
const (
	exitDone        = 0
	exitError       = 1
	exitRefused     = 3
	exitNotStopped  = 4
	exitUnreachable = 5
	exitLocked      = 6
	exitUntrue      = 7
)

// liars is a stage whose three doors are hostile when a test says so.
type liars struct {
	*stage.Stage
	t      *testing.T
	front  *proxy // clients to storefront
	hop    *proxy // storefront to vault
	owners *proxy // owners to vault
	copies int
}

func newLiars(t *testing.T) *liars {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "stage")
	l := &liars{
		t: t, front: newProxy(t, dir, "front", "storefront", "storefront"), hop: newProxy(t, dir, "hop", "vault", "storefront"), owners: newProxy(t, dir, "owners", "vault", "owners"),
	}
	l.Stage = openStage(t, stage.Options{
		Dir: dir, StorefrontAt: l.front.url(), VaultAt: l.hop.url(), OwnersAt: l.owners.url(), VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits,
	})
	return l
}

// honest ends all lies.
func (l *liars) honest() {
	for _, p := range []*proxy{l.front, l.hop, l.owners} {
		p.set(nil)
	}
}

// twin is a copy of a profile of its own.
func (l *liars) twin(name string) string {
	l.copies++
	return twin(l.t, l.Stage, name, fmt.Sprintf("%s-%d", name, l.copies))
}

// run runs a command and returns what it said, whatever the exit code.
func (l *liars) run(t *testing.T, profile string, args ...string) stage.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	r, err := l.Sallyport(ctx, profile, args...)
	must(t, err)
	return r
}

// silence is a door that never answers.
func silence(*message) *answer { return nil }

// at lies on one path and is honest elsewhere.
func at(method, path string, lie hook) hook {
	return func(m *message) *answer {
		if m.is(method, path) {
			return lie(m)
		}
		return m.pass()
	}
}

// says is an answer made up.
func says(status int, body string) *answer {
	return &answer{status, http.Header{"Content-Type": {"application/json"}}, []byte(body)}
}

// refuses is a problem document made up.
func refuses(code policies.Code, status int) *answer {
	body := fmt.Sprintf(`{"type":"urn:sallyport:problem:%s","title":"no","status":%d,"code":%q}`, string(code), status, string(code))
	return &answer{status, http.Header{"Content-Type": {"application/problem+json"}}, []byte(body)}
}

// values is what `biz read --json` prints.
type values struct {
	Values []struct {
		Alias string         `json:"alias"`
		Field policies.Field `json:"field"`
		Text  string         `json:"text"`
		Error struct {
			Code policies.Code `json:"code"`
		} `json:"error"`
	} `json:"values"`
	Error struct {
		Code policies.Code `json:"code"`
		Text string        `json:"text"`
	} `json:"error"`
}

// TestHostileReads is a storefront, or a network, that lies to readers: whatever it does, a reader gets the value that the owner published last,
// or an error, and never another value.
func TestHostileReads(t *testing.T) {
	t.Parallel()
	l := newLiars(t)
	s := l.Stage
	for _, name := range []string{"alice", "bob"} {
		play(t, s, exitDone, name, "me", "init")
	}
	for _, name := range []string{"shop", "bank"} {
		play(t, s, exitDone, name, "biz", "init", "--name", name)
	}
	const oldNote, note, name, bobs = "alice's first note", "alice's second note", "alice's name", "bob's note"
	play(t, s, exitDone, "alice", "me", "set", "own/note", oldNote)
	play(t, s, exitDone, "alice", "me", "set", "own/name", name)
	play(t, s, exitDone, "bob", "me", "set", "own/note", bobs)
	connect(t, s, "alice", "shop")
	connect(t, s, "bob", "shop")
	connect(t, s, "alice", "bank")
	play(t, s, exitDone, "alice", "me", "grant", "shop", "own/note", "own/name")
	play(t, s, exitDone, "bob", "me", "grant", "shop", "own/note")
	play(t, s, exitDone, "alice", "me", "grant", "bank", "own/note")

	// An older answer and an older leaf, and what another reader is given.
	var older, another *api.ReadResult
	capture := func(into **api.ReadResult) hook {
		return at("POST", api.PathReads, func(m *message) *answer {
			return rewrite(m, m.pass(), func(r *api.ReadResult) { c := *r; *into = &c })
		})
	}
	l.front.set(capture(&older))
	play(t, s, exitDone, l.twin("shop"), "biz", "read", "--all")
	l.front.set(capture(&another))
	play(t, s, exitDone, l.twin("bank"), "biz", "read", "--all")
	l.honest()
	play(t, s, exitDone, "alice", "me", "set", "own/note", note)

	// find finds an item of a result by what its leaf says.
	alice := policies.OwnerID{}
	for _, it := range another.Items {
		leaf, err := policies.ParseLeaf(it.Leaf)
		must(t, err)
		alice = leaf.Owner
	}
	find := func(r *api.ReadResult, mine bool, f policies.Field) *api.ReadItem {
		for i := range r.Items {
			if leaf, err := policies.ParseLeaf(r.Items[i].Leaf); err == nil && leaf.Field == f && (leaf.Owner == alice) == mine {
				return &r.Items[i]
			}
		}
		panic("no such item in the storefront's answer")
	}
	n := func(r *api.ReadResult) *api.ReadItem { return find(r, true, "own/note") }
	nm := func(r *api.ReadResult) *api.ReadItem { return find(r, true, "own/name") }
	bn := func(r *api.ReadResult) *api.ReadItem { return find(r, false, "own/note") }
	all := []string{"alice own/note", "alice own/name", "bob own/note"}
	truth := map[string]string{all[0]: note, all[1]: name, all[2]: bobs}

	t.Run("answers", func(t *testing.T) {
		rows := []struct {
			name string
			lie  func(*api.ReadResult)
			bad  []string // items that must come to nothing; nil: the whole read
		}{
			{"leaves swapped", func(r *api.ReadResult) { a, b := n(r), nm(r); a.Leaf, b.Leaf = b.Leaf, a.Leaf }, all[:2]},
			{"items swapped", func(r *api.ReadResult) { a, b := n(r), nm(r); *a, *b = *b, *a }, all[:2]},
			{"another owner's item", func(r *api.ReadResult) { *n(r) = *bn(r) }, all[:1]},
			{"this owner's item for another's", func(r *api.ReadResult) { *bn(r) = *n(r) }, all[2:]},
			{"an older leaf", func(r *api.ReadResult) { n(r).Leaf = n(older).Leaf }, all[:1]},
			{"an older item", func(r *api.ReadResult) { *n(r) = *n(older); r.Documents = append(r.Documents, older.Documents...) }, all[:1]},
			{"an older ciphertext", func(r *api.ReadResult) { n(r).Ciphertext = n(older).Ciphertext }, all[:1]},
			{"an older manifest", func(r *api.ReadResult) { n(r).Manifest = n(older).Manifest; r.Documents = older.Documents }, all[:2]},
			{"no leaf", func(r *api.ReadResult) { n(r).Leaf = nil }, all[:1]},
			{"a leaf cut short", func(r *api.ReadResult) { i := n(r); i.Leaf = i.Leaf[:80] }, all[:1]},
			{"a bent capsule", func(r *api.ReadResult) { i := n(r); i.Leaf[len(i.Leaf)-100] ^= 1 }, all[:1]},
			{"another proof", func(r *api.ReadResult) { n(r).Proof = nm(r).Proof }, all[:1]},
			{"no proof", func(r *api.ReadResult) { n(r).Proof = policies.Proof{} }, all[:1]},
			{"a bent ciphertext", func(r *api.ReadResult) { n(r).Ciphertext[3] ^= 1 }, all[:1]},
			{"a ciphertext cut short", func(r *api.ReadResult) { i := n(r); i.Ciphertext = i.Ciphertext[:len(i.Ciphertext)-1] }, all[:1]},
			{"another field's ciphertext", func(r *api.ReadResult) { n(r).Ciphertext = nm(r).Ciphertext }, all[:1]},
			{"no ciphertext", func(r *api.ReadResult) { n(r).Ciphertext = nil }, all[:1]},
			{"another owner's grant", func(r *api.ReadResult) { n(r).Grant = bn(r).Grant }, all[:1]},
			{"another reader's grant", func(r *api.ReadResult) {
				n(r).Grant = n(another).Grant
				r.Documents = append(r.Documents, another.Documents...)
			}, all[:1]},
			{"a grant that nobody made", func(r *api.ReadResult) { n(r).Grant = policies.Hash{9} }, all[:1]},
			{"no documents", func(r *api.ReadResult) { r.Documents = nil }, all},
			{"a refusal made up beside the answer", func(r *api.ReadResult) { n(r).Outcome = policies.CodeRevoked }, []string{}},
			{"documents that are none", func(r *api.ReadResult) { r.Documents = []jsontext.Value{jsontext.Value(`{}`)} }, nil},
			{"an older answer", func(r *api.ReadResult) { *r = *older }, nil},
			{"an older sealed answer", func(r *api.ReadResult) { r.Answer = older.Answer }, nil},
			{"another reader's answer", func(r *api.ReadResult) { *r = *another }, nil},
			{"another reader's sealed answer", func(r *api.ReadResult) { r.Answer = another.Answer }, nil},
			{"a bent sealed answer", func(r *api.ReadResult) { r.Answer[20] ^= 1 }, nil},
			{"no sealed answer", func(r *api.ReadResult) { r.Answer = nil }, nil},
			{"an item dropped", func(r *api.ReadResult) { r.Items = r.Items[1:] }, nil},
			{"an item added", func(r *api.ReadResult) { r.Items = append(r.Items, r.Items[0]) }, nil},
		}
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				defer l.honest()
				// A reader that has the grants already is asked for no documents; this one has them as they were before the lie.
				l.front.set(at("POST", api.PathReads, func(m *message) *answer {
					var in api.Read
					must(t, json.Unmarshal(m.body, &in))
					in.Have = nil
					m.body, _ = json.Marshal(in)
					return rewrite(m, m.pass(), row.lie)
				}))
				reader := l.twin("shop")
				r := l.run(t, reader, "biz", "read", "--all", "--json")
				want := exitUntrue
				if row.bad != nil && len(row.bad) == 0 {
					want = exitDone
				}
				if r.Code != want {
					t.Errorf("exit code %d, want %d\n%s%s", r.Code, want, r.Stdout, r.Stderr)
				}
				got := said[values](t, r)
				if row.bad == nil {
					if len(got.Values) != 0 {
						t.Errorf("values of an answer that is untrue: %s", r.Stdout)
					}
				} else if len(got.Values) != len(all) {
					t.Errorf("%d values", len(got.Values))
				}
				for _, v := range got.Values {
					what := v.Alias + " " + string(v.Field)
					if slices.Contains(row.bad, what) {
						if v.Text != "" {
							t.Errorf("%s: %q was taken for true", what, v.Text)
						}
					} else if v.Text != truth[what] {
						t.Errorf("%s: %q, want %q", what, v.Text, truth[what])
					}
				}
				// The same reader reads well from an honest storefront, whatever it was told.
				l.honest()
				r = l.run(t, reader, "biz", "read", "alice", "own/note")
				if r.Code != exitDone || strings.TrimSpace(r.Stdout) != note {
					t.Errorf("honest afterwards: exit code %d, %s%s", r.Code, r.Stdout, r.Stderr)
				}
			})
		}
	})

	t.Run("older than seen", func(t *testing.T) {
		// A reader that saw the newest manifest is given everything as it was before, by a vault's door that is asked an older question.
		defer l.honest()
		reader := l.twin("shop")
		play(t, s, exitDone, reader, "biz", "read", "alice", "own/note")
		l.front.set(at("POST", api.PathReads, func(m *message) *answer {
			return rewrite(m, m.pass(), func(r *api.ReadResult) { r.Items[0], r.Documents = *n(older), older.Documents })
		}))
		if r := l.run(t, reader, "biz", "read", "alice", "own/note", "--json"); r.Code != exitUntrue || strings.Contains(r.Stdout, oldNote) {
			t.Errorf("exit code %d\n%s", r.Code, r.Stdout)
		}
	})

	t.Run("stubborn", func(t *testing.T) {
		rows := []struct {
			name string
			path string
			lie  hook
			exit int
			code policies.Code
			most int64 // requests of this path
		}{
			{"head_moved for ever", api.PathReads, func(*message) *answer { return refuses(policies.CodeHeadMoved, 409) }, exitRefused, policies.CodeHeadMoved, 4},
			{"unknown_session for ever", api.PathReads, func(*message) *answer { return refuses(policies.CodeSession, 401) }, exitRefused, policies.CodeSession, 4},
			{"replayed for ever", api.PathReads, func(*message) *answer { return refuses(policies.CodeReplay, 401) }, exitRefused, policies.CodeReplay, 4},
			{"silence", api.PathReads, silence, exitUnreachable, policies.CodeUnavailable, 4},
			{"a page of somebody else", api.PathReads, func(*message) *answer { return says(502, "<html>") }, exitUnreachable, policies.CodeUnavailable, 4},
			{"garbage", api.PathReads, func(*message) *answer { return says(200, "garbage") }, exitUntrue, "", 4},
			{"nothing", api.PathReads, func(*message) *answer { return says(200, "{}") }, exitUntrue, "", 4},
			{"a redirection", api.PathReads, func(*message) *answer {
				return &answer{307, http.Header{"Location": {s.OwnersURL()}}, nil}
			}, exitUnreachable, policies.CodeUnavailable, 4},
			{"a code that there is not", api.PathReads, func(*message) *answer { return refuses("released_to_you", 403) }, exitUnreachable, policies.CodeUnavailable, 4},
			{"no session", api.PathSessions, func(*message) *answer { return refuses(policies.CodeUnavailable, 503) }, exitUnreachable, policies.CodeUnavailable, 4},
			{"a session without a receipt", api.PathSessions, func(m *message) *answer { m.pass(); return says(200, "{}") }, exitUntrue, "", 4},
			{"a session that was never passed on", api.PathSessions, func(*message) *answer { return says(200, "{}") }, exitUntrue, "", 4},
			{"a session's receipt of somebody else", api.PathSessions, func(m *message) *answer {
				return rewrite(m, m.pass(), func(r *evidence.Receipt) { r.Document[0] ^= 1 })
			}, exitUntrue, "", 4},
			{"unauthorized for ever", api.PathSessions, func(*message) *answer { return refuses(policies.CodeUnauthorized, 401) }, exitRefused, policies.CodeUnauthorized, 4},
		}
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				defer l.honest()
				var asked atomic.Int64
				calls := derives(t, s)
				l.front.set(at("POST", row.path, func(m *message) *answer { asked.Add(1); return row.lie(m) }))
				r := l.run(t, l.twin("shop"), "biz", "read", "alice", "own/note", "--json")
				got := said[values](t, r)
				if r.Code != row.exit || got.Error.Code != row.code || len(got.Values) != 0 {
					t.Errorf("exit code %d, want %d\n%s", r.Code, row.exit, r.Stdout)
				}
				if asked.Load() > row.most {
					t.Errorf("asked %d times", asked.Load())
				}
				if now := derives(t, s); now != calls {
					t.Errorf("%d derives", now-calls)
				}
			})
		}
		t.Run("pages of grants without end", func(t *testing.T) {
			defer l.honest()
			var page atomic.Int64
			var first api.ReaderGrants
			l.front.set(at("GET", api.PathReaderGrants, func(m *message) *answer {
				if page.Add(1) == 1 {
					return rewrite(m, m.pass(), func(g *api.ReaderGrants) { first = *g; g.After = "1" })
				}
				first.After = fmt.Sprint(page.Load())
				b, err := json.Marshal(first)
				must(t, err)
				return says(200, string(b))
			}))
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			r, err := l.Sallyport(ctx, l.twin("shop"), "biz", "grants", "--json")
			must(t, err)
			if ctx.Err() != nil || r.Code != exitUntrue {
				t.Errorf("exit code %d after %d pages\n%s", r.Code, page.Load(), r.Stdout)
			}
		})
	})

	// What lies between storefront and vault lies to both.
	t.Run("hop", func(t *testing.T) {
		calls := func(change func([]vaultapi.Call)) hook {
			return at("POST", vaultapi.PathReencrypt, func(m *message) *answer {
				list, err := vaultapi.ParseCalls(m.body)
				must(t, err)
				change(list)
				m.body = vaultapi.AppendCalls(nil, list)
				return m.pass()
			})
		}
		replies := func(change func([]vaultapi.Reply)) hook {
			return at("POST", vaultapi.PathReencrypt, func(m *message) *answer {
				a := m.pass()
				list, err := vaultapi.ParseReplies(a.body)
				must(t, err)
				change(list)
				a.body = vaultapi.AppendReplies(nil, list)
				return a
			})
		}
		item := func(change func(*vaultapi.CallItem)) hook {
			return calls(func(c []vaultapi.Call) { change(&c[0].Items[0]) })
		}
		var first vaultapi.Reply
		rows := []struct {
			name    string
			lie     hook
			exit    int
			code    policies.Code
			logged  []policies.Code // refusals
			derives uint64
		}{
			{"an older head", item(func(i *vaultapi.CallItem) { i.Head = n(older).Manifest }), exitRefused, policies.CodeHeadMoved, []policies.Code{policies.CodeHeadMoved, policies.CodeHeadMoved}, 0},
			{"an older leaf", item(func(i *vaultapi.CallItem) { i.Leaf = n(older).Leaf }), exitRefused, policies.CodeProof, []policies.Code{policies.CodeProof}, 0},
			{"another field's leaf", item(func(i *vaultapi.CallItem) { i.Leaf = nm(older).Leaf }), exitRefused, policies.CodeLeaf, []policies.Code{policies.CodeLeaf}, 0},
			{"another grant", item(func(i *vaultapi.CallItem) { i.Grant[0] ^= 1 }), exitRefused, policies.CodeNoGrant, []policies.Code{policies.CodeNoGrant}, 0},
			{"another point", item(func(i *vaultapi.CallItem) { i.Point = s.Generator() }), exitRefused, policies.CodePoint, []policies.Code{policies.CodePoint}, 0},
			{"a bent proof", item(func(i *vaultapi.CallItem) { i.Proof.Path[0][5] ^= 1 }), exitRefused, policies.CodeProof, []policies.Code{policies.CodeProof}, 0},
			{"an item dropped", calls(func(c []vaultapi.Call) { c[0].Items = nil }), exitRefused, policies.CodeMalformed, []policies.Code{policies.CodeMalformed}, 0},
			{"a bent request", calls(func(c []vaultapi.Call) { c[0].Request = bendSignature(c[0].Request) }), exitRefused, policies.CodeSignature, nil, 0},
			{"a refusal made up", replies(func(r []vaultapi.Reply) { r[0] = vaultapi.Reply{Code: policies.CodeRevoked} }), exitRefused, policies.CodeRevoked, nil, 1},
			{"a bent sealed answer", replies(func(r []vaultapi.Reply) { r[0].Sealed[30] ^= 1 }), exitUntrue, "", nil, 1},
			{"the answer of before", replies(func(r []vaultapi.Reply) { r[0].Sealed = first.Sealed }), exitUntrue, "", nil, 1},
			{"a reply dropped", at("POST", vaultapi.PathReencrypt, func(m *message) *answer { a := m.pass(); a.body = vaultapi.AppendReplies(nil, nil); return a }), exitUnreachable, policies.CodeUnavailable, nil, 1},
			{"silence", at("POST", vaultapi.PathReencrypt, silence), exitUnreachable, policies.CodeUnavailable, nil, 0},
		}
		l.hop.set(replies(func(r []vaultapi.Reply) { first = r[0]; first.Sealed = bytes.Clone(first.Sealed) }))
		play(t, s, exitDone, "shop", "biz", "read", "alice", "own/note")
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				defer l.honest()
				before, from := derives(t, s), len(devices.Journal(t, s))
				l.hop.set(row.lie)
				r := l.run(t, l.twin("shop"), "biz", "read", "alice", "own/note", "--json")
				got := said[values](t, r)
				found := got.Error.Code
				for _, v := range got.Values {
					found = v.Error.Code
					if v.Text != "" {
						t.Errorf("the reader got %q", v.Text)
					}
				}
				if r.Code != row.exit || found != row.code {
					t.Errorf("exit code %d, want %d\n%s", r.Code, row.exit, r.Stdout)
				}
				if n := derives(t, s) - before; n != row.derives {
					t.Errorf("%d derives, want %d", n, row.derives)
				}
				var refusals []policies.Code
				for _, e := range since(t, s, from) {
					if e.Entry.Kind == evidence.EntryRefusal {
						refusals = append(refusals, e.Entry.Outcome)
					}
				}
				if !slices.Equal(refusals, row.logged) {
					t.Errorf("refusals in the key-use log: %q, want %q", refusals, row.logged)
				}
			})
		}
	})

	// Requests that a network recorded are worth nothing again.
	t.Run("recorded", func(t *testing.T) {
		var mu sync.Mutex
		var seen []*message
		l.front.set(func(m *message) *answer {
			mu.Lock()
			c := *m
			c.Request = m.Request.Clone(context.Background())
			c.body = bytes.Clone(m.body)
			seen = append(seen, &c)
			mu.Unlock()
			return m.pass()
		})
		play(t, s, exitDone, l.twin("shop"), "biz", "read", "--all")
		l.honest()
		calls, from := derives(t, s), len(devices.Journal(t, s))
		want := map[string]policies.Code{
			"POST " + api.PathReads: policies.CodeReplay, "POST " + api.PathSessions: policies.CodeReplay, "GET " + api.PathReaderGrants: policies.CodeReplay,
			"POST " + api.PathLogins: policies.CodeUnauthorized,
		}
		for _, m := range seen {
			what := m.Method + " " + m.URL.Path
			code, ok := want[what]
			if !ok {
				continue
			}
			delete(want, what)
			a := m.pass()
			if a == nil || problemCode(a.body) != code {
				t.Errorf("%s sent again: %+v, want %q", what, a, string(code))
			}
		}
		if len(want) != 0 {
			t.Errorf("not seen on the wire: %v", want)
		}
		if n := derives(t, s) - calls; n != 0 {
			t.Errorf("%d derives", n)
		}
		refusedOnce(t, s, from, policies.CodeReplay)
	})

	t.Run("networks", func(t *testing.T) {
		// Somebody else's certificate, and a storefront that would speak without ML-KEM.
		other := httptest.NewUnstartedServer(l.front)
		other.Config.ErrorLog = l.front.quiet()
		other.StartTLS()
		defer other.Close()
		certificate, err := tls.LoadX509KeyPair(filepath.Join(s.Dir(), "tls", "storefront.pem"), filepath.Join(s.Dir(), "tls", "storefront-key.pem"))
		must(t, err)
		serve := func(c *tls.Config) string {
			c.Certificates = []tls.Certificate{certificate}
			server := httptest.NewUnstartedServer(l.front)
			server.TLS, server.Config.ErrorLog = c, l.front.quiet()
			server.StartTLS()
			t.Cleanup(server.Close)
			return server.URL
		}
		for name, url := range map[string]string{
			"another certificate": other.URL,
			"no ML-KEM":           serve(&tls.Config{CurvePreferences: []tls.CurveID{tls.X25519}}),
			"TLS 1.2":             serve(&tls.Config{MaxVersion: tls.VersionTLS12}),
			"plain HTTP":          strings.Replace(s.StorefrontURL(), "https", "http", 1),
		} {
			r := l.run(t, l.twin("shop"), "--storefront", url, "biz", "read", "alice", "own/note", "--json")
			want := exitUnreachable
			if name == "plain HTTP" {
				want = exitError
			}
			if r.Code != want || strings.Contains(r.Stdout, note) {
				t.Errorf("%s: exit code %d, want %d\n%s%s", name, r.Code, want, r.Stdout, r.Stderr)
			}
		}
		if r := l.run(t, l.twin("shop"), "--storefront", serve(&tls.Config{MinVersion: tls.VersionTLS13}), "biz", "read", "alice", "own/note"); r.Code != exitDone {
			t.Errorf("the same with ML-KEM: exit code %d\n%s", r.Code, r.Stderr)
		}
		c := outsider(t, s, nil)
		for path, size := range map[string]int{api.PathReads: 1 << 20, api.PathIdentities: 32 << 10, api.PathChallenges: 1 << 10} {
			resp, err := c.Post(s.StorefrontURL()+path, "application/json", bytes.NewReader(bytes.Repeat([]byte(" "), size+1)))
			must(t, err)
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			must(t, err)
			if got := problemCode(body); got != policies.CodeTooLarge {
				t.Errorf("%s with %d bytes: HTTP status %d, %q", path, size+1, resp.StatusCode, got)
			}
		}
	})

	t.Run("login challenges", func(t *testing.T) {
		// A grant's ciphertext, and a session's, as a login challenge: the device must not become a decapsulation oracle. What leaves it is a MAC
		// under a key of its login key, for which nothing else was ever encapsulated.
		grant := grantOf(t, s, "alice")
		root, err := pre.ParseRoot(openState(t, s, "shop").Root)
		must(t, err)
		for name, ct := range map[string][]byte{"a grant's ciphertext": grant.Ciphertext, "zeroes": make([]byte, policies.KEMCiphertextSize), "a short one": grant.Ciphertext[:100]} {
			var ask api.ChallengeRequest
			var challenge api.LoginChallenge
			var proofs [][]byte
			l.front.set(func(m *message) *answer {
				switch {
				case m.is("POST", api.PathChallenges):
					must(t, json.Unmarshal(m.body, &ask))
					return rewrite(m, m.pass(), func(c *api.LoginChallenge) { c.Ciphertext = ct; challenge = *c })
				case m.is("POST", api.PathLogins):
					var in api.LoginAnswer
					must(t, json.Unmarshal(m.body, &in))
					proofs = append(proofs, in.Proof)
					if want := (api.LoginAnswer{ID: in.ID, Proof: in.Proof}); !jsonEqual(m.body, want) {
						t.Errorf("%s: the device says more than its proof: %s", name, m.body)
					}
				}
				return m.pass()
			})
			r := l.run(t, l.twin("shop"), "biz", "grants", "--json")
			l.honest()
			got := said[values](t, r)
			if name == "a short one" {
				if r.Code != exitUntrue || len(proofs) != 0 {
					t.Errorf("%s: exit code %d, %d proofs\n%s", name, r.Code, len(proofs), r.Stdout)
				}
				continue
			}
			if r.Code != exitRefused || got.Error.Code != policies.CodeUnauthorized || len(proofs) == 0 {
				t.Errorf("%s: exit code %d, %d proofs\n%s", name, r.Code, len(proofs), r.Stdout)
				continue
			}
			mac, err := pre.NewLoginKey(root.LoginSeed()).Answer(&pre.Challenge{
				Server: strings.TrimPrefix(l.front.url(), "https://"), Subject: ask.Subject, Ciphertext: ct, Nonce: challenge.Nonce, FreshKey: ask.Key,
			})
			must(t, err)
			if last := proofs[len(proofs)-1]; !bytes.Equal(last, mac[:]) {
				t.Errorf("%s: the proof is not the MAC under the login key", name)
			}
		}
		// A storefront under another name that passes on the real one's challenge: the device proves itself to the name that it dialled.
		elsewhere := strings.Replace(l.front.url(), "127.0.0.1", "localhost", 1)
		l.front.set(func(m *message) *answer {
			m.Host = strings.Replace(m.Host, "localhost", "127.0.0.1", 1)
			return m.pass()
		})
		r := l.run(t, l.twin("shop"), "--storefront", elsewhere, "biz", "grants", "--json")
		l.honest()
		if got := said[values](t, r); r.Code != exitRefused || got.Error.Code != policies.CodeUnauthorized {
			t.Errorf("a challenge passed on: exit code %d\n%s", r.Code, r.Stdout)
		}
	})
	if r := l.run(t, "shop", "biz", "read", "alice", "own/note"); r.Code != exitDone || strings.TrimSpace(r.Stdout) != note {
		t.Errorf("honest at the end: exit code %d, %s%s", r.Code, r.Stdout, r.Stderr)
	}
}

// grantOf is an owner's newest grant.
func grantOf(t *testing.T, s *stage.Stage, owner string) *policies.Grant {
	t.Helper()
	grants := openState(t, s, owner).Grants
	return &grants[len(grants)-1].Doc
}

func jsonEqual(body []byte, v any) bool {
	want, err := json.Marshal(v)
	return err == nil && bytes.Equal(body, want)
}
