package problem

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// refusals are all codes that can be an answer, with the status each goes out with.
var refusals = map[policies.Code]int{
	policies.CodeMalformed: 400, policies.CodeWrongVault: 400, policies.CodeProof: 400, policies.CodeLeaf: 400, policies.CodePoint: 400,
	policies.CodeCustody: 400, policies.CodeImport: 400, policies.CodeTooLarge: 413, policies.CodeSignature: 401, policies.CodeUnknown: 401,
	policies.CodeUnauthorized: 401, policies.CodeSession: 401, policies.CodeExpired: 401, policies.CodeReplay: 401, policies.CodeNoGrant: 403,
	policies.CodeRevoked: 403, policies.CodeGrantExpired: 403, policies.CodeNotYet: 403, policies.CodeLimit: 403, policies.CodePurpose: 403,
	policies.CodeGuardrail: 403, policies.CodeNotFound: 404, policies.CodeClosed: 410, policies.CodeExists: 409, policies.CodeChain: 409, policies.CodeHeadMoved: 409,
	policies.CodeBehind: 409, policies.CodeRateLimited: 429, policies.CodeUnavailable: 503, policies.CodeLogStopped: 503, policies.CodeLogFull: 503, policies.CodeClock: 503,
	policies.CodeTokenFailure: 503, policies.CodeKeyMissing: 503, policies.CodeInternal: 500,
}

// send takes an error over HTTP and back.
func send(err error) (*httptest.ResponseRecorder, error) {
	w := httptest.NewRecorder()
	Write(w, err)
	return w, Read(w.Code, w.Header().Get("Content-Type"), bytes.NewReader(w.Body.Bytes()))
}

func TestEveryCodeSurvivesTheWire(t *testing.T) {
	for code, status := range refusals {
		for _, err := range []error{code, fmt.Errorf("reading: %w", code), New(code, "item %d", 7), fmt.Errorf("reading: %w", New(code, "item %d", 7))} {
			w, back := send(err)
			if w.Code != status || w.Header().Get("Content-Type") != ContentType || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("%v: status %d, headers %v", err, w.Code, w.Header())
			}
			if !errors.Is(back, code) {
				t.Errorf("%v came back as %v", err, back)
			}
			for other := range refusals {
				if other != code && errors.Is(back, other) {
					t.Errorf("%v came back as %v too", err, other)
				}
			}
		}
	}
}

func TestOf(t *testing.T) {
	secret := errors.New("open /var/lib/x: PIN 1234")
	for _, c := range []struct {
		name   string
		err    error
		code   policies.Code
		detail string
	}{
		{"a problem as it is", New(policies.CodeLimit, "10 reads"), policies.CodeLimit, "10 reads"},
		{"a problem wrapped: its own detail alone", fmt.Errorf("%w: %w", New(policies.CodeLimit, "10 reads"), secret), policies.CodeLimit, "10 reads"},
		{"a bare code", policies.CodeRevoked, policies.CodeRevoked, ""},
		{"a wrapped code", fmt.Errorf("item 3: %w", policies.CodeRevoked), policies.CodeRevoked, "item 3: the grant was revoked"},
		{"malformed", fmt.Errorf("%w: grant: no id", policies.ErrMalformed), policies.CodeMalformed, "malformed: grant: no id"},
		{"signature", fmt.Errorf("grant: %w", policies.ErrSignature), policies.CodeSignature, ""},
		{"proof", fmt.Errorf("%w: index beyond size", policies.ErrProof), policies.CodeProof, ""},
		{"anything else", secret, policies.CodeInternal, ""},
		{"the log's fault, wrapped with what it was", fmt.Errorf("%w: %w", policies.CodeLogStopped, secret), policies.CodeLogStopped, ""},
		{"the token's fault, wrapped with what it was", fmt.Errorf("%w: %w", policies.CodeTokenFailure, secret), policies.CodeTokenFailure, ""},
		{"unavailable, wrapped with what it was", fmt.Errorf("%w: %w", policies.CodeUnavailable, secret), policies.CodeUnavailable, ""},
		{"a refused import: all look alike", fmt.Errorf("%w: %w", policies.CodeImport, errors.New("OAEP padding")), policies.CodeImport, ""},
		{"a fault whose detail was meant to be shown", New(policies.CodeUnavailable, "the disk is full"), policies.CodeUnavailable, "the disk is full"},
		{"internal, wrapped with what it was", fmt.Errorf("%w: %w", policies.CodeInternal, secret), policies.CodeInternal, ""},
	} {
		p := Of(c.err)
		if p.Code != c.code || p.Detail != c.detail {
			t.Errorf("%s: code %s, detail %q; want %s, %q", c.name, p.Code, p.Detail, c.code, c.detail)
		}
		if p.Type != "urn:sallyport:problem:"+string(c.code) || p.Title != c.code.Error() || p.Status != Status(c.code) {
			t.Errorf("%s: %+v", c.name, p)
		}
	}
}

func TestOfDoesNotChangeWhatItIsGiven(t *testing.T) {
	given := New(policies.CodeLimit, "10 reads")
	if Of(given); !reflect.DeepEqual(given, New(policies.CodeLimit, "10 reads")) {
		t.Errorf("became %+v", given)
	}
}

func TestMembersSurvive(t *testing.T) {
	p := New(policies.CodeChain, "seq 4 came first")
	p.Receipt = &evidence.Receipt{Type: "receipt", Suite: policies.Suite, Document: policies.Hash{1}, Evidence: evidence.Evidence{Index: 4, Leaf: []byte{1}, Opening: evidence.Opening{Details: []byte("{}")}}}
	p.RetryAfter = 7
	w, back := send(p)
	var got *Problem
	if !errors.As(back, &got) || !reflect.DeepEqual(got.Receipt, p.Receipt) || got.RetryAfter != 7 || got.Detail != p.Detail {
		t.Errorf("came back as %+v", got)
	}
	if w.Header().Get("Retry-After") != "7" {
		t.Errorf("headers %v", w.Header())
	}
	if got, want := back.Error(), policies.CodeChain.Error()+": seq 4 came first"; got != want {
		t.Errorf("says %q, want %q", got, want)
	}
}

// What is no problem document of ours never passes for a decision of the vault.
func TestReadForeignAnswers(t *testing.T) {
	for _, c := range []struct{ name, contentType, body string }{
		{"a proxy's page", "text/html", "<html>"},
		{"our body under another type", "application/json", `{"code":"grant_revoked"}`},
		{"not JSON", ContentType, "<html>"},
		{"empty", ContentType, ""},
		{"no code", ContentType, `{"title":"x"}`},
		{"an unknown code", ContentType, `{"code":"fine"}`},
		{"code twice", ContentType, `{"code":"fine","code":"grant_revoked"}`},
		{"too long", ContentType, `{"code":"grant_revoked","detail":"` + strings.Repeat("x", maxSize) + `"}`},
	} {
		err := Read(http.StatusBadGateway, c.contentType, strings.NewReader(c.body))
		if !errors.Is(err, policies.CodeUnavailable) || !strings.Contains(err.Error(), "502") {
			t.Errorf("%s: got %v, want %v", c.name, err, policies.CodeUnavailable)
		}
	}
	// A member of a later version is no reason to lose the code.
	if err := Read(403, ContentType, strings.NewReader(`{"code":"grant_revoked","later":1}`)); !errors.Is(err, policies.CodeRevoked) {
		t.Errorf("with an unknown member: got %v, want %v", err, policies.CodeRevoked)
	}
}

func FuzzRead(f *testing.F) {
	w, _ := send(New(policies.CodeChain, "detail"))
	f.Add(w.Body.Bytes())
	f.Add([]byte(`{"code":"internal","receipt":{"evidence":{"leaf":"AA=="}}}`))
	f.Add([]byte("<html>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		err := Read(500, ContentType, bytes.NewReader(data))
		var p *Problem
		if !errors.As(err, &p) || !p.Code.Valid() || !errors.Is(err, p.Code) || err.Error() == "" {
			t.Errorf("got %v", err)
		}
	})
}

// A detail repeats what a stranger sent, on its way out and on its way in. It must not draw on a terminal, split a line of a log, or
// be so long or so badly encoded that the code is lost.
func TestDetailIsHarmless(t *testing.T) {
	for _, detail := range []string{
		"\x1b[1A\x1b[2Kaccepted", "a\nb", "\u202egnp.exe", "\xff\xfe", strings.Repeat("\x00", 1<<20), strings.Repeat("é", 1<<20), "\u0085", "\u200b", "\u2028",
	} {
		_, out := send(New(policies.CodeRevoked, "%s", detail))
		body := `{"code":"grant_revoked","detail":"` + strings.NewReplacer("\x1b", `\u001b`, "\n", `\n`, "\x00", "", "\xff\xfe", "").Replace(detail[:min(len(detail), 1<<10)]) + `"}`
		in := Read(http.StatusForbidden, ContentType, strings.NewReader(body))
		for _, err := range []error{out, in} {
			var p *Problem
			if !errors.As(err, &p) || p.Code != policies.CodeRevoked {
				t.Errorf("%.20q: the code was lost: %v", detail, err)
				continue
			}
			text := err.Error()
			if len(text) > 2<<10 || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%.20q: says %.100q, %d bytes", detail, text, len(text))
			}
		}
	}
	if _, err := send(New(policies.CodeRevoked, "Ærø – 10 €")); !strings.HasSuffix(err.Error(), ": Ærø – 10 €") {
		t.Errorf("an honest detail became %q", err)
	}
}

// The other side does not decide how long a client sleeps.
func TestRetryAfterIsBounded(t *testing.T) {
	for sent, want := range map[string]int{"-1": 0, "7": 7, "9223372036": 3600, "9223372036854775807": 3600} {
		var p *Problem
		err := Read(http.StatusServiceUnavailable, ContentType, strings.NewReader(`{"code":"rate_limited","retry_after":`+sent+`}`))
		if !errors.As(err, &p) || p.RetryAfter != want {
			t.Errorf("%s: got %v, %d, want %d", sent, err, p.RetryAfter, want)
		}
	}
}
