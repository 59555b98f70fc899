package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/phrases"
)

func event(number uint64) *client.ConsentEvent {
	return &client.ConsentEvent{Number: number, Time: time.Unix(1_800_000_000, 0).UTC(), Kind: client.EventConsent, Owner: policies.OwnerID{1}, Alias: "CUST-1", Request: policies.DocumentID{2}, Status: consent.Partly, Fields: []policies.Field{"address.home"}}
}

// TestWebhook: an event is sent until it is taken, signed each time anew and under one id; nothing goes where a redirect points.
func TestWebhook(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "hook.key")
	var mu sync.Mutex
	var ids []string
	answers := []int{500, 302, 429, 204}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		key, err := webhookSecret(secret)
		if err != nil {
			t.Error(err)
		}
		id, in, err := checkWebhook(key, r.Header, body, time.Now())
		if err != nil || in.Type != "consent.partly" || in.Data.Number != 7 || in.Data.Alias != "CUST-1" {
			t.Errorf("got %+v, %v", in, err)
		}
		ids = append(ids, id)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(answers[min(len(ids), len(answers))-1])
	}))
	defer server.Close()
	hook, err := newWebhook(server.URL+"/hook", secret)
	if err != nil {
		t.Fatal(err)
	}
	hook.first = time.Millisecond
	if err := hook.deliver(t.Context(), event(7)); err != nil {
		t.Fatal(err)
	}
	if len(ids) != 4 || len(slices.Compact(slices.Clone(ids))) != 1 {
		t.Errorf("sent under the ids %q", ids)
	}
	answers = []int{410}
	if err := hook.deliver(t.Context(), event(7)); !errors.Is(err, errGone) {
		t.Errorf("a webhook that is gone: %v", err)
	}
	answers = []int{500}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := hook.deliver(ctx, event(7)); err == nil {
		t.Error("given up, and no error")
	}
	// One that is to end does so after some tries, and says which event waits.
	answers, ids, hook.tries = []int{500}, nil, 3
	if err := hook.deliver(t.Context(), event(7)); !errors.Is(err, errNotTaken) || exitCode(err) != exitUnreachable || !strings.Contains(err.Error(), "event 7") || len(ids) != 3 {
		t.Errorf("after %d tries: %v", len(ids), err)
	}
	for _, target := range []string{"http://shop.example/hook", "ftp://127.0.0.1/", "https://a:b@shop.example/", "shop.example", "https:///x"} {
		if _, err := newWebhook(target, secret); !errors.Is(err, errUsage) {
			t.Errorf("%s: %v", target, err)
		}
	}
	os.Chmod(secret, 0o644)
	if _, err := newWebhook(server.URL, secret); err == nil {
		t.Error("a secret that everybody can read")
	}
}

// TestWebhookForgeries: what is not signed with the secret, or was changed, or is old, is not taken.
func TestWebhookForgeries(t *testing.T) {
	key, now := bytes.Repeat([]byte{7}, 32), time.Unix(1_800_000_000, 0)
	body := []byte(`{"type":"consent.denied","timestamp":"2027-01-15T08:00:00Z","data":{"number":1,"time":"2027-01-15T08:00:00Z","kind":"consent","owner":"` + policies.OwnerID{1}.String() + `"}}`)
	stamp := strconv.FormatInt(now.Unix(), 10)
	good := http.Header{"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {stamp}, "Webhook-Signature": {signWebhook(key, "msg_1", stamp, body)}}
	if _, _, err := checkWebhook(key, good, body, now); err != nil {
		t.Fatal(err)
	}
	rotated := good.Clone()
	rotated.Set("Webhook-Signature", signWebhook(bytes.Repeat([]byte{8}, 32), "msg_1", stamp, body)+" "+good.Get("Webhook-Signature"))
	if _, _, err := checkWebhook(key, rotated, body, now); err != nil {
		t.Errorf("while secrets are exchanged: %v", err)
	}
	for name, c := range map[string]struct {
		spoil func(http.Header)
		body  []byte
		now   time.Time
		want  error
	}{
		"another secret":  {func(h http.Header) { h.Set("Webhook-Signature", signWebhook([]byte("x"), "msg_1", stamp, body)) }, body, now, policies.CodeSignature},
		"another id":      {func(h http.Header) { h.Set("Webhook-Id", "msg_2") }, body, now, policies.CodeSignature},
		"another time":    {func(h http.Header) { h.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix()+1, 10)) }, body, now, policies.CodeSignature},
		"another body":    {func(http.Header) {}, append(bytes.Clone(body), ' '), now, policies.CodeSignature},
		"no signature":    {func(h http.Header) { h.Del("Webhook-Signature") }, body, now, policies.CodeSignature},
		"another version": {func(h http.Header) { h.Set("Webhook-Signature", "v0,"+good.Get("Webhook-Signature")[3:]) }, body, now, policies.CodeSignature},
		"old":             {func(http.Header) {}, body, now.Add(webhookSkew + time.Second), policies.CodeExpired},
		"of the future":   {func(http.Header) {}, body, now.Add(-webhookSkew - time.Second), policies.CodeExpired},
		"no time":         {func(h http.Header) { h.Del("Webhook-Timestamp") }, body, now, policies.ErrMalformed},
		"no id":           {func(h http.Header) { h.Del("Webhook-Id") }, body, now, policies.ErrMalformed},
	} {
		h := good.Clone()
		c.spoil(h)
		if _, _, err := checkWebhook(key, h, c.body, c.now); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func FuzzWebhook(f *testing.F) {
	key := bytes.Repeat([]byte{7}, 32)
	f.Add("msg_1", "1800000000", []byte(`{"type":"deletion","timestamp":"2027-01-15T08:00:00Z","data":{}}`))
	f.Fuzz(func(t *testing.T, id, stamp string, body []byte) {
		h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {stamp}, "Webhook-Signature": {signWebhook(key, id, stamp, body)}}
		got, in, err := checkWebhook(key, h, body, time.Unix(1_800_000_000, 0))
		if err == nil && (got != id || in == nil || id == "") {
			t.Errorf("taken as %q, %+v", got, in)
		}
		h.Set("Webhook-Signature", signWebhook(key, id, stamp, append(body, 0)))
		if _, _, err := checkWebhook(key, h, body, time.Unix(1_800_000_000, 0)); err == nil {
			t.Error("a signature over something else was taken")
		}
	})
}

func TestAskFields(t *testing.T) {
	c := &client.Consent{Asked: []consent.AskedField{{Field: "a"}, {Field: "b"}, {Field: "c"}, {Field: "d"}}}
	s := &session{ctx: t.Context(), lang: phrases.German}
	if got, err := s.askFields(c, bufio.NewReader(strings.NewReader("j\nnein\nja\ny\nn\n")), io.Discard); err != nil || !slices.Equal(got, []policies.Field{"a", "c"}) {
		t.Errorf("decided %v, %v", got, err)
	}
	s = &session{ctx: t.Context(), lang: phrases.English}
	got, err := s.askFields(c, bufio.NewReader(strings.NewReader("y\nmaybe\n YES \n\nn\n")), io.Discard)
	if err != nil || !slices.Equal(got, []policies.Field{"a", "b"}) {
		t.Errorf("decided %v, %v", got, err)
	}
	if got, err := s.askFields(c, bufio.NewReader(strings.NewReader("y\ny\n")), io.Discard); err == nil {
		t.Errorf("a terminal that went away decided %v", got)
	}
}

func TestAskedOnTheCommandLine(t *testing.T) {
	c := bizAsk{Fields: []string{"address.home"}, Optional: []string{"phone.mobile"}, Reason: []string{"delivery = fast", "phone.mobile=when nobody opens"}}
	got, err := c.fields()
	want := []consent.AskedField{{Field: "address.home", Required: true, Reason: "delivery = fast"}, {Field: "phone.mobile", Reason: "when nobody opens"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for name, c := range map[string]bizAsk{
		"no field":                     {Reason: []string{"x"}},
		"two reasons":                  {Fields: []string{"address.home"}, Reason: []string{"x", "y"}},
		"a reason for another":         {Fields: []string{"address.home"}, Reason: []string{"x", "email.home=y"}},
		"a reason for one of two only": {Fields: []string{"address.home", "phone.mobile"}, Reason: []string{"phone.mobile=y"}},
	} {
		if _, err := c.fields(); !errors.Is(err, errUsage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReferences(t *testing.T) {
	got, err := referencesOf(strings.NewReader("\ufeffreference,name\nK-1,\"Zoë, B.\"\n\"K,2\",x\n"), "reference")
	if err != nil || !slices.Equal(got, []string{"K-1", "K,2"}) {
		t.Errorf("%q, %v", got, err)
	}
	for name, c := range map[string]struct{ text, says string }{
		"empty": {"", "it is empty"}, "another column": {"id;x\n1;2\n", `no column "reference", but ["id;x"]`}, "twice": {"reference\na\na\n", "row 2"},
		"a short row": {"reference,x\na\n", "line 2"},
	} {
		if _, err := referencesOf(strings.NewReader(c.text), "reference"); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestInvitationsFile: what a crash left half is written again, what is whole stays.
func TestInvitationsFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "links.csv")
	expires := time.Unix(1_800_000_000, 0).UTC()
	link := links.Invite{Reader: policies.IdentityID{1}, Token: []byte("t")}
	add := func(references ...string) []string {
		t.Helper()
		done, err := openInvitations(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(done.references) > 0 && !done.expires.Equal(expires) {
			t.Errorf("they end at %s", done.expires)
		}
		for _, r := range references {
			done.rows.Write([]string{r, link.String(), expires.Format(time.RFC3339)})
		}
		if err := done.close(); err != nil {
			t.Fatal(err)
		}
		return done.references
	}
	if got := add("a", "b,\"c\""); len(got) != 0 {
		t.Errorf("a new file has %q", got)
	}
	whole, _ := os.ReadFile(name)
	for cut := range len(whole) + 1 {
		if err := os.WriteFile(name, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		rows := bytes.Count(whole[:cut], []byte("\n")) - 1
		if got := add(); len(got) != max(rows, 0) {
			t.Fatalf("cut to %d bytes: %d rows, want %d", cut, len(got), rows)
		}
		after, _ := os.ReadFile(name)
		if rows >= 0 && !bytes.HasPrefix(whole, after) {
			t.Fatalf("cut to %d bytes: %q", cut, after)
		}
	}
	os.WriteFile(name, []byte("something,else\n"), 0o600)
	if _, err := openInvitations(name); !errors.Is(err, errNotInvitations) {
		t.Errorf("another file: %v", err)
	}
	for _, row := range []string{"a,b,c\n", "a," + link.String() + ",soon\n", fmt.Sprintf("a,%s\n", link)} {
		os.WriteFile(name, []byte("reference,link,expires\n"+row), 0o600)
		if _, err := openInvitations(name); err == nil {
			t.Errorf("%q was taken", row)
		}
	}
}

// TestNotTakenSays: what a business is told when its webhook is dead is about businesses.
func TestNotTakenSays(t *testing.T) {
	var errs bytes.Buffer
	s := &session{Global: &Global{}, ctx: t.Context(), lang: phrases.English, stdout: io.Discard, stderr: &errs}
	s.fail(fmt.Errorf("%w: event %d: %w", errNotTaken, 7, errors.New("500")))
	if strings.Contains(errs.String(), "sallyport me sync") {
		t.Errorf("it says %q", errs.String())
	}
}

// FuzzReferences: a customer list that somebody else's program wrote gives references each once, or an error.
func FuzzReferences(f *testing.F) {
	f.Add([]byte("reference,name\nK-1,\"Zoë, B.\"\n\"K,2\",x\n"), "reference")
	f.Add([]byte("\ufeffid\r\n1\r\n"), "id")
	f.Fuzz(func(t *testing.T, text []byte, column string) {
		got, err := referencesOf(bytes.NewReader(text), column)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, reference := range got {
			if seen[reference] {
				t.Errorf("%q came twice", reference)
			}
			seen[reference] = true
		}
	})
}

// FuzzInvitations: a file of invitations that is read gives links that are links, in its order.
func FuzzInvitations(f *testing.F) {
	link := links.Invite{Reader: policies.IdentityID{1}, Token: []byte("t")}
	f.Add([]byte("reference,link,expires\nK-1," + link.String() + ",2027-01-15T08:00:00Z\n"))
	f.Add([]byte("reference,link,expires\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		rows := 0
		err := eachInvitation(bytes.NewReader(text), func(_ string, link links.Invite, _ time.Time) error {
			rows++
			if again, err := links.ParseInvite(link.String()); err != nil || again.Reader != link.Reader || !bytes.Equal(again.Token, link.Token) {
				t.Errorf("row %d: %v, %v", rows, link, err)
			}
			return nil
		})
		if err == nil && rows > bytes.Count(text, []byte("\n"))+1 {
			t.Errorf("%d rows of %q", rows, text)
		}
	})
}
