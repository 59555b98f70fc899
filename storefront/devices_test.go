package storefront

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/pairing"
	"github.com/sallyport/sallyport/storefront/api"
)

// TestMeetings: the parts of a meeting come in order, each once, the profile from whoever answered; there are so many and no more, each for ten minutes.
func TestMeetings(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var m meetings
	fresh := func() { m = meetings{of: map[pairing.Code]*meeting{}} }
	fresh()
	code, anna, eve := pairing.Code{1}, policies.IdentityID{1}, policies.IdentityID{2}
	leave := func(part, after string, by policies.IdentityID, body string) error {
		return m.leave(code, part, after, "net", by, []byte(body), now)
	}
	for _, c := range []struct {
		part, after string
		by          policies.IdentityID
		body        string
		want        error
	}{
		{"answer", "offer", anna, "a", policies.CodeNotFound},
		{"offer", "", policies.IdentityID{}, "o", nil},
		{"opening", "answer", policies.IdentityID{}, "k", policies.CodeNotFound},
		{"profile", "opening", anna, "p", policies.CodeNotFound},
		{"answer", "offer", anna, "a", nil},
		{"answer", "offer", anna, "a", nil}, // sent again, since the first one's answer was lost
		{"answer", "offer", eve, "e", policies.CodeExists},
		{"offer", "", policies.IdentityID{}, "other", policies.CodeExists},
		{"opening", "answer", policies.IdentityID{}, "k", nil},
		{"profile", "opening", eve, "e", policies.CodeUnauthorized},
		{"profile", "opening", anna, "p", nil},
	} {
		if err := leave(c.part, c.after, c.by, c.body); !errors.Is(err, c.want) && !(err == nil && c.want == nil) {
			t.Errorf("%s %q: %v, want %v", c.part, c.body, err, c.want)
		}
	}
	if b, ok := m.get(code, "profile", now); !ok || string(b) != "p" {
		t.Errorf("the profile is %q", b)
	}
	if b, ok := m.get(code, "profile", now.Add(meetingOver)); !ok || string(b) != "p" {
		t.Errorf("asked for again, the profile is %q", b)
	}
	if _, ok := m.get(code, "profile", now.Add(meetingOver+time.Second)); ok {
		t.Error("a meeting whose profile was fetched is there")
	}
	fresh()
	if err := errors.Join(leave("offer", "", anna, "o"), leave("answer", "offer", anna, "a")); err != nil {
		t.Fatal(err)
	}
	if _, ok := m.get(code, "answer", now.Add(meetingLifetime)); !ok {
		t.Error("a meeting that is not over is gone")
	}
	now = now.Add(meetingLifetime + time.Second)
	if _, ok := m.get(code, "answer", now); ok {
		t.Error("a meeting of long ago is there")
	}
	if err := leave("offer", "", policies.IdentityID{}, "new"); err != nil {
		t.Errorf("a code whose meeting is over: %v", err)
	}
	// One address has eight, all together a thousand; and so many profiles are on their way.
	fresh()
	for i := range 2 * maxMeetings {
		c := pairing.Code{byte(i), byte(i >> 8)}
		net := string(rune('a' + i%300))
		err := m.leave(c, "offer", "", net, policies.IdentityID{}, []byte("o"), now)
		if full := i >= maxMeetings; (err != nil) != full {
			t.Fatalf("meeting %d: %v", i, err)
		}
	}
	fresh()
	for i := range meetingsEach + 1 {
		if err := m.leave(pairing.Code{byte(i)}, "offer", "", "one", policies.IdentityID{}, []byte("o"), now); (err != nil) != (i == meetingsEach) {
			t.Errorf("meeting %d of one address: %v", i, err)
		}
	}
	fresh()
	for i := range 2 * meetingsEach { // one after the other, each to its end
		c := pairing.Code{byte(i)}
		for _, s := range [][2]string{{"offer", ""}, {"answer", "offer"}, {"opening", "answer"}, {"profile", "opening"}} {
			if err := m.leave(c, s[0], s[1], "one", anna, []byte("x"), now); err != nil {
				t.Fatalf("meeting %d after others: %v", i, err)
			}
		}
		m.get(c, "profile", now)
		now = now.Add(meetingOver / 4)
	}
	fresh()
	for i := range maxProfiles + 1 {
		c, net := pairing.Code{byte(i)}, string(rune('a'+i))
		for _, s := range [][2]string{{"offer", ""}, {"answer", "offer"}, {"opening", "answer"}} {
			if err := m.leave(c, s[0], s[1], net, anna, []byte("x"), now); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.leave(c, "profile", "opening", net, anna, []byte("x"), now); (err != nil) != (i == maxProfiles) {
			t.Errorf("profile %d: %v", i, err)
		}
	}
}

// TestMeetingForms: what is left must have its form, and an answer is of whoever is logged in.
func TestMeetingForms(t *testing.T) {
	w := newWorld(t, Limits{})
	post := func(path, body string) int {
		t.Helper()
		resp, err := w.server.Client().Post(w.server.URL+strings.ReplaceAll(path, "{code}", "0123-4567"), "application/json", bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	good := `{"commitment":"` + strings.Repeat("ab", 32) + `"}`
	for _, c := range []struct {
		path, body string
		want       int
	}{
		{api.PathDeviceOffer, `{}`, 400},
		{api.PathDeviceOffer, `{"commitment":"","more":1}`, 400},
		{strings.ReplaceAll(api.PathDeviceOffer, "{code}", "0123"), good, 400},
		{api.PathDeviceOffer, good, 201},
		{api.PathDeviceOpening, `{"key":"","nonce":""}`, 400},
		{api.PathDeviceAnswer, `{}`, 401},
		{api.PathDeviceProfile, `{"sealed":"AA=="}`, 401},
	} {
		if got := post(c.path, c.body); got != c.want {
			t.Errorf("%s %s: status %d, want %d", c.path, c.body, got, c.want)
		}
	}
}
