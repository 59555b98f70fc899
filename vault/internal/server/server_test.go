package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/vault/api"
)

// scripted is a vault that says what a test wants.
type scripted struct{ submit error }

func (s scripted) Submit(context.Context, api.Submission) (*evidence.Receipt, error) {
	if s.submit == errPanic {
		panic("a secret that must not be shown")
	}
	return &evidence.Receipt{Type: "receipt", Suite: policies.Suite}, s.submit
}
func (scripted) Reencrypt(_ context.Context, calls []api.Call) []api.Reply {
	replies := make([]api.Reply, len(calls))
	for i := range calls {
		replies[i].Sealed = calls[i].Request
	}
	return replies
}
func (scripted) Fetch(f api.Fetch) (*api.Fetched, error) {
	return &api.Fetched{Documents: []jsontext.Value{f.Envelope}}, nil
}
func (scripted) Chain(policies.OwnerID) (*api.ChainState, error) { return &api.ChainState{Seq: 3}, nil }
func (scripted) Head(policies.OwnerID, policies.AuthorID) (*api.HeadState, error) {
	return &api.HeadState{Version: 2}, nil
}
func (scripted) History(_ policies.OwnerID, before uint64, limit int) (*api.History, error) {
	return &api.History{Checkpoint: fmt.Sprint(before, limit)}, nil
}
func (scripted) Freeze(policies.OwnerID) (*api.FreezeState, error) { return new(api.FreezeState), nil }
func (scripted) Consistency(from, to uint64) (*api.Consistency, error) {
	return &api.Consistency{From: from, To: to}, nil
}
func (s scripted) Query(_ context.Context, query []byte) ([]byte, func(), error) {
	return query, func() {}, s.submit
}
func (scripted) Evidence(_ context.Context, request []byte) ([]byte, error) { return request, nil }
func (scripted) Health() api.Health                                         { return api.Health{Status: "ok"} }
func (scripted) Published(name string) ([]byte, error) {
	if strings.HasSuffix(name, "404") {
		return nil, policies.CodeNotFound
	}
	return []byte(name), nil
}
func (scripted) Document() *envelope.Envelope { return &envelope.Envelope{Raw: []byte(`{"a":1}`)} }

var (
	errPanic = errors.New("panic")
	quiet    = slog.New(slog.NewTextHandler(io.Discard, nil))
	someone  = strings.Repeat("ab", 32)
)

func ask(h http.Handler, method, path, contentType string, body []byte) (*http.Response, error) {
	r := httptest.NewRequest(method, path, bytes.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	resp := w.Result()
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	return resp, problem.Read(resp.StatusCode, resp.Header.Get("Content-Type"), resp.Body)
}

func TestRoutes(t *testing.T) {
	calls := api.AppendCalls(nil, []api.Call{{Request: []byte("r")}})
	chain, head := "/v1/owners/"+someone+"/chain", "/v1/owners/"+someone+"/heads/"+someone
	history := "/v1/owners/" + someone + "/history"
	for _, test := range []struct {
		name               string
		vault              scripted
		method, path, kind string
		body               []byte
		storefront, owners error
	}{
		{"document", scripted{}, "GET", api.PathVault, "", nil, nil, nil},
		{"health", scripted{}, "GET", api.PathHealth, "", nil, nil, nil},
		{"submit", scripted{}, "POST", api.PathDocuments, "", []byte(`{"envelope":{}}`), nil, nil},
		{"fetch", scripted{}, "POST", api.PathFetch, "", []byte(`{"envelope":{}}`), nil, nil},
		{"fetch, too long", scripted{}, "POST", api.PathFetch, "", make([]byte, api.MaxFetch+1), policies.CodeTooLarge, policies.CodeTooLarge},
		{"fetch, not JSON", scripted{}, "POST", api.PathFetch, "", []byte(`{`), policies.CodeMalformed, policies.CodeMalformed},
		{"chain", scripted{}, "GET", chain, "", nil, nil, policies.CodeNotFound},
		{"head", scripted{}, "GET", head, "", nil, nil, policies.CodeNotFound},
		{"history", scripted{}, "GET", history + "?before=7&limit=3", "", nil, nil, policies.CodeNotFound},
		{"freeze", scripted{}, "GET", "/v1/owners/" + someone + "/freeze", "", nil, nil, policies.CodeNotFound},
		{"freeze of nobody", scripted{}, "GET", "/v1/owners/x/freeze", "", nil, policies.CodeMalformed, policies.CodeNotFound},
		{"consistency", scripted{}, "GET", api.PathLogConsistency + "?from=1&to=2", "", nil, nil, nil},
		{"from not a number", scripted{}, "GET", api.PathLogConsistency + "?from=x&to=2", "", nil, policies.CodeMalformed, policies.CodeMalformed},
		{"evidence", scripted{}, "POST", api.PathEvidence, "", []byte("{}"), nil, nil},
		{"evidence, too long", scripted{}, "POST", api.PathEvidence, "", make([]byte, api.MaxEvidence+1), policies.CodeTooLarge, policies.CodeTooLarge},
		{"evidence, asked for as a page", scripted{}, "GET", api.PathEvidence, "", nil, policies.CodeNotFound, policies.CodeNotFound},
		{"reencrypt", scripted{}, "POST", api.PathReencrypt, api.ReencryptMedia, calls, nil, policies.CodeNotFound},

		{"checkpoint", scripted{}, "GET", api.PathLogCheckpoint, "", nil, nil, nil},
		{"published vault document", scripted{}, "GET", api.PathLogVault, "", nil, nil, nil},
		{"hash tile", scripted{}, "GET", "/v1/log/tile/0/x001/234", "", nil, nil, nil},
		{"partial hash tile", scripted{}, "GET", "/v1/log/tile/2/000.p/7", "", nil, nil, nil},
		{"hash tile that is not there", scripted{}, "GET", "/v1/log/tile/0/404", "", nil, policies.CodeNotFound, policies.CodeNotFound},
		{"entries, which are not for everybody", scripted{}, "GET", "/v1/log/tile/entries/000", "", nil, policies.CodeNotFound, policies.CodeNotFound},
		{"entries by another spelling", scripted{}, "GET", "/v1/log/tile/0%2f..%2fentries/000", "", nil, policies.CodeNotFound, policies.CodeNotFound},
		{"bodies", scripted{}, "GET", "/v1/log/bodies/000", "", nil, policies.CodeNotFound, policies.CodeNotFound},
		{"a kept checkpoint", scripted{}, "GET", "/v1/log/witnessed/007", "", nil, nil, nil},
		{"a kept checkpoint of a spelling of its own", scripted{}, "GET", "/v1/log/witnessed/7", "", nil, policies.CodeNotFound, policies.CodeNotFound},
		{"a part of a kept checkpoint", scripted{}, "GET", "/v1/log/witnessed/000.p/7", "", nil, policies.CodeNotFound, policies.CodeNotFound},
		{"a folder above what is kept", scripted{}, "GET", "/v1/log/witnessed/..%2fcheckpoint", "", nil, policies.CodeNotFound, policies.CodeNotFound},
		{"a folder above", scripted{}, "GET", "/v1/log/tile/..%2f..%2fcheckpoint", "", nil, policies.CodeNotFound, policies.CodeNotFound},
		{"hash tile of a spelling of its own", scripted{}, "GET", "/v1/log/tile/0/x000/001", "", nil, policies.CodeNotFound, policies.CodeNotFound},

		{"an auditor's query", scripted{}, "POST", api.PathLogQuery, "", []byte(`{}`), nil, nil},
		{"query by GET", scripted{}, "GET", api.PathLogQuery, "", nil, policies.CodeNotFound, policies.CodeNotFound},
		{"query too large", scripted{}, "POST", api.PathLogQuery, "", make([]byte, api.MaxQuery+1), policies.CodeTooLarge, policies.CodeTooLarge},
		{"query refused", scripted{policies.CodeAuditor}, "POST", api.PathLogQuery, "", []byte(`{}`), policies.CodeAuditor, policies.CodeAuditor},

		{"no such path", scripted{}, "GET", "/v1/secrets", "", nil, policies.CodeNotFound, policies.CodeNotFound},
		{"another method", scripted{}, "DELETE", api.PathDocuments, "", nil, policies.CodeNotFound, policies.CodeNotFound},
		{"unknown member", scripted{}, "POST", api.PathDocuments, "", []byte(`{"envelope":{},"x":1}`), policies.CodeMalformed, policies.CodeMalformed},
		{"not JSON", scripted{}, "POST", api.PathDocuments, "", []byte(`{`), policies.CodeMalformed, policies.CodeMalformed},
		{"body too large", scripted{}, "POST", api.PathDocuments, "", make([]byte, api.MaxSubmission+1), policies.CodeTooLarge, policies.CodeTooLarge},
		{"longest body", scripted{}, "POST", api.PathDocuments, "", make([]byte, api.MaxSubmission), policies.CodeMalformed, policies.CodeMalformed},
		{"longest calls", scripted{}, "POST", api.PathReencrypt, api.ReencryptMedia, make([]byte, api.MaxCallsSize), policies.CodeMalformed, policies.CodeNotFound},
		{"calls too long", scripted{}, "POST", api.PathReencrypt, api.ReencryptMedia, make([]byte, api.MaxCallsSize+1), policies.CodeTooLarge, policies.CodeNotFound},
		{"body of a GET", scripted{}, "GET", api.PathVault, "", []byte("x"), policies.CodeTooLarge, policies.CodeTooLarge},
		{"owner in capitals", scripted{}, "GET", strings.ToUpper(chain[3:]), "", nil, policies.CodeNotFound, policies.CodeNotFound},
		{"owner cut short", scripted{}, "GET", "/v1/owners/ab/chain", "", nil, policies.CodeMalformed, policies.CodeNotFound},
		{"limit not a number", scripted{}, "GET", history + "?limit=-1", "", nil, policies.CodeMalformed, policies.CodeNotFound},
		{"calls cut short", scripted{}, "POST", api.PathReencrypt, api.ReencryptMedia, calls[:len(calls)-1], policies.CodeMalformed, policies.CodeNotFound},
		{"calls as JSON", scripted{}, "POST", api.PathReencrypt, "application/json", calls, policies.CodeMalformed, policies.CodeNotFound},
		{"refused", scripted{policies.CodeChain}, "POST", api.PathDocuments, "", []byte(`{"envelope":{}}`), policies.CodeChain, policies.CodeChain},
		{"broken", scripted{errors.New("/secret/path")}, "POST", api.PathDocuments, "", []byte(`{"envelope":{}}`), policies.CodeInternal, policies.CodeInternal},
		{"panic", scripted{errPanic}, "POST", api.PathDocuments, "", []byte(`{"envelope":{}}`), policies.CodeInternal, policies.CodeInternal},
		{"log stopped", scripted{fmt.Errorf("%w: /secret/path", policies.CodeLogStopped)}, "POST", api.PathDocuments, "", []byte(`{"envelope":{}}`), policies.CodeLogStopped, policies.CodeLogStopped},
	} {
		t.Run(test.name, func(t *testing.T) {
			for door, want := range map[*Door]error{
				Storefront(test.vault, quiet):                                   test.storefront,
				Owners(test.vault, Limits{PerSecond: 1000, Burst: 1000}, quiet): test.owners,
			} {
				resp, err := ask(door.Handler, test.method, test.path, test.kind, test.body)
				if !errors.Is(err, want) || (err == nil) != (want == nil) {
					t.Errorf("%v, want %v", err, want)
				}
				if err != nil && strings.Contains(err.Error(), "secret") {
					t.Errorf("an error shows what is not for strangers: %v", err)
				}
				if public := err == nil && strings.HasPrefix(test.path, "/v1/log/"); !public && resp.Header.Get("Cache-Control") != "no-store" {
					t.Error("an answer may be cached")
				}
			}
		})
	}
}

// What never changes may be kept, what is replaced may not, and each is the file of its name.
func TestPublishedFiles(t *testing.T) {
	door := Owners(scripted{}, Limits{PerSecond: 1000, Burst: 1000}, quiet).Handler
	for _, c := range []struct{ path, file, kind, caching string }{
		{api.PathLogCheckpoint, "checkpoint", "text/plain; charset=utf-8", "no-cache"},
		{api.PathLogVault, "vault", "application/json", "no-cache"},
		{"/v1/log/tile/1/x001/234", "tile/1/x001/234", "application/octet-stream", "public, max-age=31536000, immutable"},
		{"/v1/log/tile/0/000.p/255", "tile/0/000.p/255", "application/octet-stream", "public, max-age=31536000, immutable"},
		{"/v1/log/witnessed/x001/234", "witnessed/x001/234", "text/plain; charset=utf-8", "public, max-age=31536000, immutable"},
	} {
		resp, err := ask(door, "GET", c.path, "", nil)
		if err != nil {
			t.Fatal(c.path, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != c.file || resp.Header.Get("Content-Type") != c.kind || resp.Header.Get("Cache-Control") != c.caching {
			t.Errorf("%s: %q, %v, %v", c.path, body, resp.Header, err)
		}
	}
}

func TestServersHaveEveryTimeout(t *testing.T) {
	s := Owners(scripted{}, Limits{PerSecond: 1, Burst: 1}, quiet)
	for name, s := range map[string]*Door{"owners": s, "storefront": Storefront(scripted{}, quiet)} {
		if s.ReadHeaderTimeout == 0 || s.ReadTimeout == 0 || s.WriteTimeout == 0 || s.IdleTimeout == 0 || s.MaxHeaderBytes == 0 {
			t.Errorf("%s: a timeout or bound is not set", name)
		}
	}
}

func TestLimiter(t *testing.T) {
	l, now := newLimiter(Limits{PerSecond: 1, Burst: 2}), time.Now()
	for i, want := range []bool{true, true, false} {
		if l.allow("192.0.2.1:1000", now, 1) != want {
			t.Errorf("request %d: allowed %v", i, !want)
		}
	}
	if !l.allow("192.0.2.2:1000", now, 1) || !l.allow("192.0.2.1:2000", now.Add(time.Second), 1) {
		t.Error("another address, or a second later: refused")
	}
	for i := range 3 { // one /64 is one caller
		if l.allow(fmt.Sprintf("[2001:db8::%d]:1", i), now, 1) != (i < 2) {
			t.Errorf("IPv6 request %d", i)
		}
	}
	for i := range 2 * maxAddresses {
		l.allow(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255), now, 1)
	}
	if len(l.buckets) > maxAddresses {
		t.Errorf("%d buckets", len(l.buckets))
	}
	h := Owners(scripted{}, Limits{PerSecond: 0.001, Burst: 1}, quiet).Handler
	ask(h, "GET", api.PathHealth, "", nil)
	if resp, err := ask(h, "GET", api.PathHealth, "", nil); !errors.Is(err, policies.CodeRateLimited) || resp.Header.Get("Retry-After") == "" {
		t.Errorf("the second request: %v", err)
	}
}

// TestEnrolmentsAreDear: what the vault keeps for ever cannot be had at the rate of questions.
func TestEnrolmentsAreDear(t *testing.T) {
	h := Owners(scripted{}, Limits{PerSecond: 0.001, Burst: 50}, quiet).Handler
	key := envelope.NewPrivateKey(&[envelope.SeedSize]byte{1})
	kem := make([]byte, policies.KEMPublicKeySize)
	e, err := policies.Sign[policies.Identity](key, &policies.Identity{
		Header: policies.NewHeader("identity", time.Now()), Kind: policies.KindPerson, SigningKey: key.Public().Bytes(),
		KEMKey: kem, LoginKey: kem, RecoveryHash: policies.Hash{1},
	})
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(api.Submission{Envelope: e.Raw})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if _, err := ask(h, "POST", api.PathDocuments, "", body); (err != nil) != (i == 4) {
			t.Fatalf("enrolment %d: %v", i+1, err)
		}
	}
	if _, err := ask(h, "GET", api.PathHealth, "", nil); err != nil {
		t.Errorf("a question: %v", err)
	}
}

// slowBody gives what is there and waits for the end.
type slowBody struct {
	io.Reader
	all, end chan struct{}
}

func (b *slowBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.all <- struct{}{}
		<-b.end
	}
	return n, err
}

// TestBodiesAtOnce: at the owners' door large bodies that are not finished, however many, take no more memory than is set aside for them, and those of one
// address leave room for another's.
func TestBodiesAtOnce(t *testing.T) {
	h := Owners(scripted{}, Limits{PerSecond: 1000, Burst: 1000, Connections: 10, Each: 10}, quiet).Handler
	post := func(from string, body io.Reader) error {
		r := httptest.NewRequest("POST", api.PathDocuments, body)
		r.RemoteAddr = from + ":1000"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return problem.Read(w.Code, w.Header().Get("Content-Type"), w.Body)
	}
	all, end, over := make(chan struct{}), make(chan struct{}), make(chan error)
	for range ownersBodiesEach / api.MaxSubmission {
		go func() {
			over <- post("192.0.2.1", &slowBody{bytes.NewReader(make([]byte, api.MaxSubmission)), all, end})
		}()
		<-all
	}
	if err := post("192.0.2.1", bytes.NewReader(make([]byte, api.MaxSubmission))); !errors.Is(err, policies.CodeRateLimited) {
		t.Errorf("one more: %v", err)
	}
	if err := post("192.0.2.1", bytes.NewReader(make([]byte, trustedLength))); !errors.Is(err, policies.CodeMalformed) {
		t.Errorf("a small one: %v", err)
	}
	if err := post("192.0.2.2", bytes.NewReader(make([]byte, api.MaxSubmission))); !errors.Is(err, policies.CodeMalformed) {
		t.Errorf("another address: %v", err)
	}
	close(end)
	for range ownersBodiesEach / api.MaxSubmission {
		if err := <-over; !errors.Is(err, policies.CodeMalformed) {
			t.Errorf("one that was there first: %v", err)
		}
	}
	if err := post("192.0.2.1", bytes.NewReader(make([]byte, api.MaxSubmission))); !errors.Is(err, policies.CodeMalformed) {
		t.Errorf("afterwards: %v", err)
	}
}
