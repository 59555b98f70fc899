package storefront

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
)

func message(from, to *party, text string) api.Message {
	return api.Message{From: from.id, To: to.id, Type: "letter", Expires: time.Now().Add(time.Hour).Unix(), Sealed: []byte(text)}
}

func (p *party) writes(m api.Message) error {
	p.w.t.Helper()
	return p.do("POST", api.PathMessages, m, nil)
}

// inbox is what waits for a party, as text.
func (p *party) inbox(query string) (texts []string, page api.Messages) {
	p.w.t.Helper()
	p.w.must(p.do("GET", api.PathMessages+query, nil, &page))
	for _, m := range page.Messages {
		texts = append(texts, string(m.Sealed))
	}
	return texts, page
}

func (p *party) wantInbox(want ...string) {
	p.w.t.Helper()
	if got, _ := p.inbox(""); strings.Join(got, ",") != strings.Join(want, ",") {
		p.w.t.Errorf("the inbox holds %q, want %q", got, want)
	}
}

func TestMessages(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme, eve := w.member(policies.KindPerson), w.member(policies.KindBusiness), w.member(policies.KindBusiness)
	anna.wantInbox()
	w.must(acme.writes(message(acme, anna, "one")))
	w.must(acme.writes(message(acme, anna, "one"))) // again: it is there
	w.must(eve.writes(message(eve, anna, "one")))   // somebody else's is another
	w.must(acme.writes(message(acme, anna, "two")))
	anna.wantInbox("one", "one", "two")
	acme.wantInbox()
	_, page := anna.inbox("")
	if m := page.Messages[1]; m.From != eve.id || m.To != anna.id || m.Type != "letter" || m.Number <= page.Messages[0].Number {
		t.Errorf("a message came as %+v", m)
	}
	if texts, _ := anna.inbox(fmt.Sprintf("?after=%d", page.Messages[1].Number)); len(texts) != 1 || texts[0] != "two" {
		t.Errorf("after the second: %q", texts)
	}

	// What was received goes, what came meanwhile stays; a restart changes nothing.
	w.must(acme.writes(message(acme, anna, "three")))
	w.must(anna.do("DELETE", fmt.Sprintf("%s?through=%d", api.PathMessages, page.Messages[2].Number), nil, nil))
	anna.wantInbox("three")
	w.crash()
	for _, p := range []*party{anna, acme, eve} {
		p.logIn()
	}
	anna.wantInbox("three")
	w.must(anna.do("DELETE", api.PathMessages+"?through=18446744073709551615", nil, nil))
	w.crash()
	anna.logIn()
	acme.logIn()
	w.must(acme.writes(message(acme, anna, "four")))
	if _, now := anna.inbox(""); now.Messages[0].Number <= page.Messages[2].Number {
		t.Errorf("number %d was used before", now.Messages[0].Number)
	}

	// Nobody sends in another's name, and nobody sees or deletes what waits for another.
	wantCode(t, eve.open("GET", api.PathMessages, nil, nil), policies.CodeUnauthorized)
	eve.logIn()
	wantCode(t, eve.writes(message(acme, anna, "forged")), policies.CodeUnauthorized)
	eve.wantInbox()
	w.must(eve.do("DELETE", api.PathMessages+"?through=1000000", nil, nil))
	anna.wantInbox("four")
}

func TestMessagesThatAreRefused(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	stranger := w.newParty(policies.KindPerson)
	for name, c := range map[string]struct {
		spoil func(*api.Message)
		code  policies.Code
	}{
		"to nobody":                   {func(m *api.Message) { m.To = policies.IdentityID{} }, policies.CodeMalformed},
		"to oneself":                  {func(m *api.Message) { m.To = m.From }, policies.CodeMalformed},
		"to somebody who is not here": {func(m *api.Message) { m.To = stranger.id }, policies.CodeNotFound},
		"no type":                     {func(m *api.Message) { m.Type = "" }, policies.CodeMalformed},
		"a type in capitals":          {func(m *api.Message) { m.Type = "Letter" }, policies.CodeMalformed},
		"a long type":                 {func(m *api.Message) { m.Type = strings.Repeat("x", 33) }, policies.CodeMalformed},
		"empty":                       {func(m *api.Message) { m.Sealed = nil }, policies.CodeMalformed},
		"too long":                    {func(m *api.Message) { m.Sealed = make([]byte, api.MaxMessage+1) }, policies.CodeTooLarge},
		"expired":                     {func(m *api.Message) { m.Expires = time.Now().Unix() }, policies.CodeExpired},
		"for ever":                    {func(m *api.Message) { m.Expires = time.Now().Add(api.MaxMessageLife + time.Hour).Unix() }, policies.CodeMalformed},
	} {
		m := message(acme, anna, "x")
		c.spoil(&m)
		if err := acme.writes(m); !errors.Is(err, c.code) {
			t.Errorf("%s: got %v, want %s", name, err, c.code)
		}
	}
	anna.wantInbox()
	longest := message(acme, anna, strings.Repeat("x", api.MaxMessage))
	w.must(acme.writes(longest))
	for _, query := range []string{"?after=x", "?after=-1", "?wait=01", "?after=18446744073709551616"} {
		wantCode(t, anna.do("GET", api.PathMessages+query, nil, nil), policies.CodeMalformed)
	}
	wantCode(t, anna.do("DELETE", api.PathMessages+"?through=all", nil, nil), policies.CodeMalformed)
}

// TestMessagesAreBounded: one sender cannot fill a mailbox, many cannot beyond its bounds, and who has most gives way to who has less.
func TestMessagesAreBounded(t *testing.T) {
	limits := loose
	limits.Messages, limits.MessagesEach = 6, 4
	w := newWorld(t, limits)
	anna, acme, ben, eve := w.member(policies.KindPerson), w.member(policies.KindBusiness), w.member(policies.KindBusiness), w.member(policies.KindBusiness)
	for i := range 4 {
		w.must(eve.writes(message(eve, anna, fmt.Sprint("eve", i))))
	}
	wantCode(t, eve.writes(message(eve, anna, "more")), policies.CodeMailboxFull)
	w.must(acme.writes(message(acme, anna, "acme0")))
	w.must(acme.writes(message(acme, anna, "acme1")))
	w.must(ben.writes(message(ben, anna, "ben0")))
	anna.wantInbox("eve1", "eve2", "eve3", "acme0", "acme1", "ben0")
	w.must(ben.writes(message(ben, anna, "ben1")))
	anna.wantInbox("eve2", "eve3", "acme0", "acme1", "ben0", "ben1")
	wantCode(t, ben.writes(message(ben, anna, "ben2")), policies.CodeMailboxFull) // nobody has more than ben would
	w.must(anna.do("DELETE", api.PathMessages+"?through=1000", nil, nil))
	w.must(ben.writes(message(ben, anna, "ben2")))

	limits = loose
	limits.MessageBytes = api.MaxMessage
	w = newWorld(t, limits)
	anna, acme, ben = w.member(policies.KindPerson), w.member(policies.KindBusiness), w.member(policies.KindBusiness)
	half := strings.Repeat("h", api.MaxMessage/2)
	w.must(acme.writes(message(acme, anna, half)))
	w.must(acme.writes(message(acme, anna, half[1:])))
	wantCode(t, acme.writes(message(acme, anna, "xx")), policies.CodeMailboxFull)
	w.must(ben.writes(message(ben, anna, "ben")))
	anna.wantInbox(half[1:], "ben")

	limits = loose
	limits.MessageRate, limits.MessageBurst = 1e-9, documentCost(api.MaxMessage)
	w = newWorld(t, limits)
	anna, acme, ben = w.member(policies.KindPerson), w.member(policies.KindBusiness), w.member(policies.KindBusiness)
	w.must(acme.writes(message(acme, anna, strings.Repeat("x", api.MaxMessage))))
	wantCode(t, acme.writes(message(acme, anna, "x")), policies.CodeRateLimited)
	w.must(ben.writes(message(ben, anna, "x")))
}

func TestMessagesExpire(t *testing.T) {
	limits := loose
	limits.MessagesEach = 1
	w := newWorld(t, limits)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	short := message(acme, anna, "old")
	short.Expires = time.Now().Unix() + 2
	w.must(acme.writes(short))
	wantCode(t, acme.writes(message(acme, anna, "new")), policies.CodeMailboxFull)
	for time.Now().Unix() < short.Expires {
		time.Sleep(10 * time.Millisecond)
	}
	anna.wantInbox()
	w.must(acme.writes(message(acme, anna, "new"))) // there is room again
	anna.wantInbox("new")
	w.front.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	w.must(w.front.sweepOnce(t.Context()))
	n := 0
	for _, kind := range []byte{kindLetter, kindSealed} {
		w.must(w.front.each(t.Context(), []byte{kind}, nil, func(store.Record) error { n++; return nil }))
	}
	if n != 0 {
		t.Errorf("%d records of messages that expired are left", n)
	}
}

// TestMessagesAreWaitedFor: who waits gets the message when it comes, and nobody waits for a server that stops.
func TestMessagesAreWaitedFor(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			if texts, _ := anna.inbox("?wait=20"); len(texts) != 1 || texts[0] != "hello" {
				t.Errorf("waited for %q", texts)
			}
		})
	}
	waiting := func() int {
		w.front.waiters.mu.Lock()
		defer w.front.waiters.mu.Unlock()
		return len(w.front.waiters.of[anna.id])
	}
	for waiting() < 3 {
		time.Sleep(time.Millisecond)
	}
	begin := time.Now()
	w.must(acme.writes(message(acme, anna, "hello")))
	group.Wait()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("those who waited were told after %s", took)
	}
	if waiting() != 0 {
		t.Errorf("%d still wait", waiting())
	}
	for range waitersOfOne + 1 {
		group.Go(func() { acme.inbox("?wait=20") })
	}
	for w.front.Release(); ; time.Sleep(time.Millisecond) {
		w.front.waiters.mu.Lock()
		n := len(w.front.waiters.of)
		w.front.waiters.mu.Unlock()
		if n == 0 {
			break
		}
	}
	group.Wait()
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("a server that stops let them wait, %s in all", took)
	}
}

// TestMessagesOverFailures: what was acknowledged is there whatever fails, and what is sent again is there once.
func TestMessagesOverFailures(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	w.must(acme.writes(message(acme, anna, "one")))
	broken := errors.New("the disk")
	w.store.set(func([]store.Change) error { return broken }, nil)
	wantCode(t, acme.writes(message(acme, anna, "two")), policies.CodeInternal)
	w.store.set(nil, func([]store.Change) error { return broken }) // written, and nobody knows
	wantCode(t, acme.writes(message(acme, anna, "three")), policies.CodeInternal)
	w.store.set(nil, nil)
	anna.wantInbox("one", "three")
	w.must(acme.writes(message(acme, anna, "three")))
	w.must(acme.writes(message(acme, anna, "two")))
	anna.wantInbox("one", "three", "two")
	w.store.set(func([]store.Change) error { return broken }, nil)
	wantCode(t, anna.do("DELETE", api.PathMessages+"?through=100", nil, nil), policies.CodeInternal)
	w.store.set(nil, nil)
	anna.wantInbox("one", "three", "two")
}
