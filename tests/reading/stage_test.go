package reading

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/tests/stage"
)

// play runs the sallyport command with a profile, demands an exit code, and reads the JSON that it prints.
func play[T any](t *testing.T, s *stage.Stage, code int, profile string, args ...string) (out T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	r := need(s.Sallyport(ctx, profile, append(args, "--json")...))(t)
	if r.Code != code {
		t.Fatalf("sallyport %q as %s: exit code %d, want %d\n%s%s", args, profile, r.Code, code, r.Stdout, r.Stderr)
	}
	if err := json.Unmarshal([]byte(r.Stdout), &out); err != nil {
		t.Fatalf("sallyport %q: %v\n%s", args, err, r.Stdout)
	}
	return out
}

// rows is what biz read prints.
type rows struct {
	Values []struct {
		Text  string
		Error *struct{ Code policies.Code }
	}
}

// TestStage: an owner and a reader in JavaScript against a vault, a storefront and a token as they run, and the sallyport command as the
// other party.
func TestStage(t *testing.T) {
	p := open(t)
	dir := t.TempDir()
	bin := need(stage.Build(t.Context(), need(stage.ModuleRoot())(t), filepath.Join(dir, "bin")))(t)
	s := need(stage.Open(t.Context(), stage.Options{Dir: filepath.Join(dir, "stage"), Bin: bin}))(t)
	t.Cleanup(func() { must(t, s.Close()) })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(need(os.ReadFile(s.CA()))(t))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}}
	t.Cleanup(transport.CloseIdleConnections)
	p.http = &http.Client{Transport: transport, Timeout: 30 * time.Second}

	party := func(name, operation string, in map[string]any) request {
		return request{Party: name, Operation: operation, In: in}
	}
	type code struct{ Code string }
	owner := ok[struct{ ID string }](t, p, party("zoe", "owner", map[string]any{"join": s.Join()})).ID
	ok[struct{ ID string }](t, p, party("globex", "reader", map[string]any{"join": s.Join(), "name": "Globex"}))
	play[any](t, s, 0, "acme", "biz", "init", "--name", "Acme")
	play[any](t, s, 0, "ben", "me", "init")

	const purpose = "delivery"
	js := func(name, operation string, in map[string]any) json.RawMessage {
		t.Helper()
		return ok[json.RawMessage](t, p, party(name, operation, in))
	}
	goReads := func(f, want string, refused policies.Code) {
		t.Helper()
		exit := 0
		if refused != "" {
			exit = 3
		}
		got := play[rows](t, s, exit, "acme", "biz", "read", "zoe", f).Values
		switch {
		case len(got) != 1:
			t.Errorf("%s: %+v", f, got)
		case refused != "" && (got[0].Error == nil || got[0].Error.Code != refused):
			t.Errorf("%s: %+v, want %s", f, got[0], refused)
		case got[0].Text != want:
			t.Errorf("%s is %q, want %q", f, got[0].Text, want)
		}
	}
	jsReads := func(owner, f, want string, refused policies.Code) {
		t.Helper()
		got := ok[map[string]struct {
			Value, Version string
			Refused        policies.Code
		}](t, p, party("globex", "read", map[string]any{"owner": owner, "fields": []string{f}, "purpose": purpose}))
		if got[f].Value != want || got[f].Refused != refused {
			t.Errorf("%s is %+v, want %q, %q", f, got[f], want, refused)
		}
	}

	// An owner in JavaScript; readers in Go and in JavaScript.
	acme := play[code](t, s, 0, "acme", "biz", "code").Code
	globex := ok[code](t, p, party("globex", "code", nil)).Code
	play[any](t, s, 0, "acme", "biz", "connect", ok[code](t, p, party("zoe", "code", map[string]any{"reader": acme})).Code, "--as", "zoe")
	js("globex", "connect", map[string]any{"code": ok[code](t, p, party("zoe", "code", map[string]any{"reader": globex})).Code})
	js("zoe", "publish", map[string]any{"phone.mobile": "+49-151-23456701", "email.other": "zoe@mail.example"})
	granted := map[string]string{}
	for _, reader := range []string{acme, globex} {
		granted[reader] = ok[struct{ Grant string }](t, p, party("zoe", "grant", map[string]any{
			"reader": reader, "fields": []string{"phone.mobile"}, "custody": "resident", "purpose": purpose, "seconds": 3600,
		})).Grant
	}
	goReads("phone.mobile", "+49-151-23456701", "")
	jsReads(owner, "phone.mobile", "+49-151-23456701", "")
	goReads("email.other", "", policies.CodeNoGrant)
	jsReads(owner, "email.other", "", policies.CodeNoGrant)
	js("zoe", "publish", map[string]any{"phone.mobile": "+49-170-999"})
	goReads("phone.mobile", "+49-170-999", "")
	jsReads(owner, "phone.mobile", "+49-170-999", "")
	js("zoe", "revoke", map[string]any{"grant": granted[acme]})
	goReads("phone.mobile", "", policies.CodeRevoked)
	jsReads(owner, "phone.mobile", "+49-170-999", "")

	// The field moves to new keys: a grant of the old epoch is of no use, a new one is.
	js("zoe", "rotate", map[string]any{"field": "phone.mobile"})
	js("zoe", "grant", map[string]any{"reader": globex, "fields": []string{"phone.mobile"}, "custody": "resident", "purpose": purpose, "seconds": 3600})
	jsReads(owner, "phone.mobile", "+49-170-999", "")

	// An owner in Go, a reader in JavaScript.
	ben := play[code](t, s, 0, "ben", "me", "code").Code
	js("globex", "connect", map[string]any{"code": ben})
	play[any](t, s, 0, "ben", "me", "connect", globex, "--as", "globex")
	play[any](t, s, 0, "ben", "me", "set", "phone.mobile", "+33-6-12345678")
	play[any](t, s, 0, "ben", "me", "grant", "globex", "phone.mobile", "--for", "90d", "--purpose", purpose)
	_, query, _ := strings.Cut(ben, "?id=")
	id, _, _ := strings.Cut(query, "&")
	jsReads(id, "phone.mobile", "+33-6-12345678", "")
	play[any](t, s, 0, "ben", "me", "set", "phone.mobile", "+33-6-87654321")
	jsReads(id, "phone.mobile", "+33-6-87654321", "")
	play[any](t, s, 0, "ben", "me", "revoke", "globex", "phone.mobile")
	jsReads(id, "phone.mobile", "", policies.CodeRevoked)
}
