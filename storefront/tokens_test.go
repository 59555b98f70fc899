package storefront

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/storefront/api"
)

// TestTokens: a token says whose it is until it ends, and one that was changed, of another process, or ended says nothing.
func TestTokens(t *testing.T) {
	var mine, others tokens
	mine.init()
	others.init()
	now := time.Unix(1_800_000_000, 0)
	subject := policies.IdentityID{7}
	for scope, name := range tokenScopes {
		made := mine.make(subject, byte(scope), now)
		if in := mine.open(made.Token, now); !in.Active || in.Subject != subject.String() || in.Scope != name || in.Audience != api.TokenAudience || in.Expires != made.Expires {
			t.Errorf("%+v", in)
		}
		if in := mine.open(made.Token, now.Add(tokenLifetime)); in != (api.Introspection{}) {
			t.Errorf("after its end: %+v", in)
		}
		if in := others.open(made.Token, now); in != (api.Introspection{}) {
			t.Errorf("at another storefront: %+v", in)
		}
		for i := range made.Token {
			b := []byte(made.Token)
			if b[i] ^= 1; mine.open(string(b), now).Active {
				t.Errorf("changed at %d it is taken", i)
			}
		}
		if mine.open(made.Token+"=", now).Active || mine.open("", now).Active {
			t.Error("what is no token is taken")
		}
	}
}

// TestTokenOfAClosedAccount: nobody logs in to it any more, and who has its key gets a token with which the key server deletes what it has, and no other token
// for the asking.
func TestTokenOfAClosedAccount(t *testing.T) {
	w := newWorld(t, loose)
	o, other := w.member(policies.KindPerson), w.member(policies.KindPerson)
	ask := func(subject *party, e *envelope.Envelope) (api.Introspection, error) {
		var token api.AccessToken
		err := other.open("POST", api.PathRestoreTokens, api.RestoreToken{Subject: subject.id, Closing: e.Raw}, &token)
		return w.front.tokens.open(token.Token, time.Now()), err
	}
	_, err := ask(o, o.closure()) // it is open
	wantCode(t, err, policies.CodeUnauthorized)
	closing := o.closure()
	w.must(o.do("POST", fill(api.PathClosure, o.id), closing.Raw, nil))
	for _, e := range []*envelope.Envelope{closing, o.closure()} {
		if in, err := ask(o, e); err != nil || in.Scope != api.ScopeAccount || in.Subject != o.id.String() {
			t.Errorf("%+v, %v", in, err)
		}
	}
	_, err = ask(other, closing)
	wantCode(t, err, policies.CodeMalformed)
	forged, err := policies.Sign(other.signer, &policies.Closure{
		Header: policies.NewHeader("closure", time.Now()), Audience: w.doc.Vault, Owner: o.owner(), Link: policies.Link{Seq: 1, Prev: policies.Hash(o.id)},
	})
	w.must(err)
	_, err = ask(o, forged)
	wantCode(t, err, policies.CodeSignature)
	// The same document under another signature is the same hash.
	d, err := policies.Decode[policies.Closure](closing)
	w.must(err)
	forged, err = policies.Sign(other.signer, d)
	w.must(err)
	if _, err = ask(o, forged); forged.Hash != closing.Hash || !errors.Is(err, policies.CodeSignature) {
		t.Errorf("signed by somebody else: %v", err)
	}
	var token api.AccessToken
	w.must(other.open("POST", api.PathRestoreTokens, api.RestoreToken{Subject: o.id}, &token))
	if in := w.front.tokens.open(token.Token, time.Now()); in.Scope != api.ScopeRestore {
		t.Errorf("for the asking: %+v", in)
	}
}

// TestIntrospection: only a form with one token is answered.
func TestIntrospection(t *testing.T) {
	s := &Storefront{now: time.Now}
	s.tokens.init()
	token := s.tokens.make(policies.IdentityID{7}, 1, time.Now()).Token
	ask := func(method, media, body string) (int, api.Introspection) {
		r := httptest.NewRequest(method, api.PathIntrospect, strings.NewReader(body))
		r.Header.Set("Content-Type", media)
		w := httptest.NewRecorder()
		s.Introspection().ServeHTTP(w, r)
		var in api.Introspection
		if w.Code == http.StatusOK {
			if err := json.Unmarshal(w.Body.Bytes(), &in); err != nil {
				t.Fatal(err)
			}
		}
		return w.Code, in
	}
	form := "application/x-www-form-urlencoded"
	for _, c := range []struct {
		name, method, media, body string
		code                      int
		active                    bool
	}{
		{"a token", "POST", form, url.Values{"token": {token}, "token_type_hint": {"access_token"}}.Encode(), 200, true},
		{"none of ours", "POST", form, "token=abc", 200, false},
		{"two tokens", "POST", form, "token=" + token + "&token=" + token, 400, false},
		{"no token", "POST", form, "", 400, false},
		{"JSON", "POST", "application/json", "{}", 400, false},
		{"in the URL", "GET", form, "", 404, false},
		{"too long", "POST", form, "token=" + strings.Repeat("a", maxIntrospect), 413, false},
	} {
		if code, in := ask(c.method, c.media, c.body); code != c.code || in.Active != c.active {
			t.Errorf("%s: %d %+v", c.name, code, in)
		}
	}
}
