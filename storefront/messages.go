package storefront

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
)

// Sealed messages. One identity posts a message for another; it waits in the receiver's mailbox until the receiver has fetched it and says
// so, or until it expires. The storefront can read none of it and vouches for nothing: the receiver finds out by the seal and the
// signature inside whom it is from and that it is not for somebody else, and knows by the document's hash what it has seen before. A message
// that is lost, or comes twice, is no more than that.

// letterRecord is what is known of a message that waits, apart from what is sealed.
type letterRecord struct {
	From    policies.IdentityID `json:"from"`
	Type    string              `json:"type"`
	Expires int64               `json:"expires"`
	Hash    policies.Hash       `json:"hash"` // of what is sealed
	Size    int                 `json:"size"` // of it, in bytes
}

// letter is a message in a mailbox.
type letter struct {
	number uint64
	letterRecord
}

// mailbox is what waits for one receiver, oldest first, without what is sealed. It is used under the lock of its slot.
type mailbox struct {
	last    uint64 // the highest number used
	letters []letter
	bytes   int64
}

func mailboxSlot(receiver policies.IdentityID) slot { return slot{owner: policies.OwnerID(receiver)} }

func (m *mailbox) add(l letter) {
	m.letters = append(m.letters, l)
	m.bytes += int64(l.Size)
	m.last = max(m.last, l.number)
}

// remove takes letters out and returns the changes of the store that go with it.
func (m *mailbox) remove(receiver policies.IdentityID, which func(*letter) bool) (changes []store.Change) {
	m.letters = slices.DeleteFunc(m.letters, func(l letter) bool {
		if !which(&l) {
			return false
		}
		m.bytes -= int64(l.Size)
		n := policies.U64(l.number)
		changes = append(changes, store.Change{Key: key(kindLetter, receiver[:], n), Delete: true}, store.Change{Key: key(kindSealed, receiver[:], n), Delete: true})
		return true
	})
	return changes
}

// count is how many letters of a sender wait.
func (m *mailbox) count(sender policies.IdentityID) (n int) {
	for i := range m.letters {
		if m.letters[i].From == sender {
			n++
		}
	}
	return n
}

// crowder is the number of the oldest letter of whoever has most, if that is more than the newcomer would have.
func (m *mailbox) crowder(sender policies.IdentityID) (number uint64, ok bool) {
	of := make(map[policies.IdentityID]int)
	for i := range m.letters {
		of[m.letters[i].From]++
	}
	var who policies.IdentityID
	most := of[sender] + 1
	for i := range m.letters { // in their order, so that the answer is the same each time
		if from := m.letters[i].From; of[from] > most {
			who, most, ok = from, of[from], true
		}
	}
	if !ok {
		return 0, false
	}
	at := slices.IndexFunc(m.letters, func(l letter) bool { return l.From == who })
	return m.letters[at].number, true
}

// lockedMailbox loads a mailbox. The caller holds its lock, and puts back what it changed.
func (s *Storefront) lockedMailbox(ctx context.Context, receiver policies.IdentityID) (*mailbox, error) {
	if m, ok := s.mailboxes.get(receiver); ok {
		return m, nil
	}
	m := new(mailbox)
	last, _, err := s.number(ctx, key(kindNumber, receiver[:]))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	m.last = last
	err = s.each(ctx, key(kindLetter, receiver[:]), nil, func(r store.Record) error {
		l := letter{number: binary.BigEndian.Uint64(r.Key[len(r.Key)-8:])}
		if err := decodeRecord(r, &l.letterRecord); err != nil {
			return err
		}
		m.add(l)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.keepMailbox(receiver, m)
	return m, nil
}

func (s *Storefront) keepMailbox(receiver policies.IdentityID, m *mailbox) {
	s.mailboxes.put(receiver, m, 1+len(m.letters))
}

// commitMailbox writes changes that m already has. If the store does not take them, the mailbox is read anew the next time.
func (s *Storefront) commitMailbox(ctx context.Context, receiver policies.IdentityID, m *mailbox, changes []store.Change) error {
	s.mailboxes.remove(receiver)
	for part := range slices.Chunk(changes, changedAtOnce) {
		if err := s.store.Commit(ctx, part...); err != nil {
			return err
		}
	}
	s.keepMailbox(receiver, m)
	return nil
}

// changedAtOnce is how many changes of a mailbox go into one transaction.
const changedAtOnce = 1000

func (l *letter) expired(now time.Time) bool { return now.Unix() >= l.Expires }

// postMessage keeps a message for its receiver. The same message again changes nothing, so a sender who got no answer sends it again.
func (s *Storefront) postMessage(c *call) error {
	var in api.Message
	if err := envelope.Decode(c.body, &in); err != nil {
		return err
	}
	now := s.now()
	switch {
	case in.From != c.subject:
		return problem.New(policies.CodeUnauthorized, "the message is from somebody else than who logged in")
	case in.To.IsZero() || in.To == in.From:
		return problem.New(policies.CodeMalformed, "a message is to somebody else")
	case len(in.Type) < 1 || len(in.Type) > 32 || strings.Trim(in.Type, "abcdefghijklmnopqrstuvwxyz-") != "":
		return problem.New(policies.CodeMalformed, "a message's type has 1 to 32 of a-z and -")
	case len(in.Sealed) < 1:
		return problem.New(policies.CodeMalformed, "nothing is sealed in it")
	case len(in.Sealed) > api.MaxMessage:
		return problem.New(policies.CodeTooLarge, "a sealed message has at most %d bytes", api.MaxMessage)
	case in.Expires <= now.Unix():
		return problem.New(policies.CodeExpired, "the message has expired")
	case in.Expires > now.Add(api.MaxMessageLife+policies.ClockSkew).Unix():
		return problem.New(policies.CodeMalformed, "a message waits at most %d days", int(api.MaxMessageLife.Hours()/24))
	}
	if _, err := s.identityEnvelope(c.ctx, in.To); err != nil {
		return err
	}
	if !s.callers.allow("m"+string(c.subject[:]), now, s.limits.MessageRate, s.limits.MessageBurst, documentCost(len(in.Sealed))) {
		return &problem.Problem{Code: policies.CodeRateLimited, Detail: "too many messages", RetryAfter: 5}
	}
	unlock, err := s.locks.lock(c.ctx, mailboxSlot(in.To))
	if err != nil {
		return err
	}
	defer unlock()
	m, err := s.lockedMailbox(c.ctx, in.To)
	if err != nil {
		return err
	}
	hash := policies.HashKey(in.Sealed)
	if slices.ContainsFunc(m.letters, func(l letter) bool { return l.From == in.From && l.Hash == hash }) {
		return c.created()
	}
	changed := mailbox{last: m.last, letters: slices.Clone(m.letters), bytes: m.bytes}
	changes := changed.remove(in.To, func(l *letter) bool { return l.expired(now) })
	if changed.count(in.From) >= s.limits.MessagesEach {
		return mailboxFull("%d messages of this sender wait for the receiver already", s.limits.MessagesEach)
	}
	for len(changed.letters) >= s.limits.Messages || changed.bytes+int64(len(in.Sealed)) > s.limits.MessageBytes {
		number, ok := changed.crowder(in.From)
		if !ok {
			return mailboxFull("the receiver's mailbox is full")
		}
		changes = append(changes, changed.remove(in.To, func(l *letter) bool { return l.number == number })...)
	}
	l := letter{changed.last + 1, letterRecord{From: in.From, Type: in.Type, Expires: in.Expires, Hash: hash, Size: len(in.Sealed)}}
	changed.add(l)
	n := policies.U64(l.number)
	record, err := encodeRecord(key(kindLetter, in.To[:], n), 1, l.letterRecord)
	if err != nil {
		return err
	}
	// First, so that the three are one transaction.
	changes = append([]store.Change{record, {Key: key(kindSealed, in.To[:], n), Version: 1, Value: in.Sealed}, {Key: key(kindNumber, in.To[:]), Version: l.number, Value: n}}, changes...)
	if err := s.commitMailbox(c.ctx, in.To, &changed, changes); err != nil {
		return err
	}
	s.waiters.wake(in.To)
	return c.created()
}

func mailboxFull(format string, args ...any) error {
	return &problem.Problem{Code: policies.CodeMailboxFull, Detail: fmt.Sprintf(format, args...), RetryAfter: 60}
}

// number reads a query parameter that is a count; without it the count is 0.
func (c *call) number(name string) (uint64, error) {
	text := c.Query(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != text {
		return 0, problem.New(policies.CodeMalformed, "%s is not a number", name)
	}
	return n, nil
}

// getMessages hands out the caller's messages. With ?wait=SECONDS it waits for one if there is none.
func (s *Storefront) getMessages(c *call) error {
	after, err := c.number("after")
	if err != nil {
		return err
	}
	wait, err := c.number("wait")
	if err != nil {
		return err
	}
	patience := min(time.Duration(min(wait, 3600))*time.Second, api.MaxMessageWait)
	end := time.NewTimer(patience)
	defer end.Stop()
	for {
		news, leave := s.waiters.join(c.subject)
		page, err := s.messages(c, after)
		if err != nil || len(page.Messages) > 0 || patience == 0 || news == nil {
			leave()
			if err != nil {
				return err
			}
			return c.json(http.StatusOK, page)
		}
		select {
		case <-news:
		case <-end.C:
			patience = 0
		case <-c.ctx.Done():
			leave()
			return c.ctx.Err()
		}
		leave()
	}
}

// messages is a page of what waits for the caller. Each body is read under the lock, so that none is deleted meanwhile.
func (s *Storefront) messages(c *call, after uint64) (*api.Messages, error) {
	unlock, err := s.locks.lock(c.ctx, mailboxSlot(c.subject))
	if err != nil {
		return nil, err
	}
	defer unlock()
	m, err := s.lockedMailbox(c.ctx, c.subject)
	if err != nil {
		return nil, err
	}
	page, size, now := &api.Messages{Messages: []api.Waiting{}}, 0, s.now()
	var picked []*letter
	for i := range m.letters {
		l := &m.letters[i]
		if l.number <= after || l.expired(now) {
			continue
		}
		if len(picked) == pageDocuments || size+l.Size > pageBytes {
			page.More = true
			break
		}
		picked, size = append(picked, l), size+l.Size
	}
	if err := s.share(c, "l"+string(c.subject[:])).Take(int64(size)); err != nil {
		return nil, crowded()
	}
	for _, l := range picked {
		r, err := s.store.Get(c.ctx, key(kindSealed, c.subject[:], policies.U64(l.number)))
		if errors.Is(err, store.ErrNotFound) {
			continue // lost: whoever sent it hears nothing, and sends it again or not
		} else if err != nil {
			return nil, err
		}
		page.Messages = append(page.Messages, api.Waiting{Number: l.number, Message: api.Message{From: l.From, To: c.subject, Type: l.Type, Expires: l.Expires, Sealed: r.Value}})
	}
	return page, nil
}

// deleteMessages drops what the caller has received: all up to a number.
func (s *Storefront) deleteMessages(c *call) error {
	through, err := c.number("through")
	if err != nil {
		return err
	}
	if err := s.prune(c.ctx, c.subject, func(l *letter) bool { return l.number <= through }); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	c.Writer.WriteHeaderNow()
	return nil
}

// prune deletes some of a receiver's messages.
func (s *Storefront) prune(ctx context.Context, receiver policies.IdentityID, which func(*letter) bool) error {
	unlock, err := s.locks.lock(ctx, mailboxSlot(receiver))
	if err != nil {
		return err
	}
	defer unlock()
	m, err := s.lockedMailbox(ctx, receiver)
	if err != nil {
		return err
	}
	changed := mailbox{last: m.last, letters: slices.Clone(m.letters), bytes: m.bytes}
	changes := changed.remove(receiver, which)
	if len(changes) == 0 {
		return nil
	}
	return s.commitMailbox(ctx, receiver, &changed, changes)
}

// sweepEvery is how often messages are looked for that nobody fetched in time.
const sweepEvery = time.Hour

func (s *Storefront) sweepMessages(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := s.sweepOnce(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("deleting messages that have expired", "error", err)
			}
		}
	}
}

// sweepOnce deletes the messages that have expired, of all receivers.
func (s *Storefront) sweepOnce(ctx context.Context) error {
	now := s.now()
	var due []policies.IdentityID
	err := s.each(ctx, []byte{kindLetter}, nil, func(r store.Record) error {
		if len(r.Key) != 1+32+8 {
			return fmt.Errorf("a stored key has %d bytes", len(r.Key))
		}
		var l letter
		if err := decodeRecord(r, &l.letterRecord); err != nil {
			return err
		}
		if receiver := policies.IdentityID(r.Key[1:33]); l.expired(now) && (len(due) == 0 || due[len(due)-1] != receiver) {
			due = append(due, receiver)
		}
		return nil
	})
	for _, receiver := range due {
		err = errors.Join(err, s.prune(ctx, receiver, func(l *letter) bool { return l.expired(now) }))
	}
	return err
}

// waitersOfOne is how many requests of one receiver wait at once. One more is answered without waiting.
const waitersOfOne = 8

// waiters are the requests that wait for a message.
type waiters struct {
	mu     sync.Mutex
	of     map[policies.IdentityID][]chan struct{}
	closed bool
}

func (w *waiters) init() { w.of = make(map[policies.IdentityID][]chan struct{}) }

// join waits for news of a receiver: the channel closes at the next message. It is nil if this receiver may not wait. leave ends it.
func (w *waiters) join(receiver policies.IdentityID) (news <-chan struct{}, leave func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.of[receiver]) >= waitersOfOne {
		return nil, func() {}
	}
	one := make(chan struct{})
	w.of[receiver] = append(w.of[receiver], one)
	return one, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		rest := slices.DeleteFunc(w.of[receiver], func(c chan struct{}) bool { return c == one })
		if w.of[receiver] = rest; len(rest) == 0 {
			delete(w.of, receiver)
		}
	}
}

func (w *waiters) wake(receiver policies.IdentityID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wakeLocked(receiver)
}

func (w *waiters) wakeLocked(receiver policies.IdentityID) {
	for _, one := range w.of[receiver] {
		close(one)
	}
	delete(w.of, receiver)
}

func (w *waiters) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for receiver := range w.of {
		w.wakeLocked(receiver)
	}
}
