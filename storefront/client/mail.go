package client

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// Sealed messages between two parties. What goes out is signed, sealed and saved before it is sent, and sent again, as the same bytes, until the storefront
// has it. What comes in is dropped if its seal or signature is not right, if it is for somebody else, too old, or known already; else it is
// saved, and only then does the storefront hear that it may delete it. So neither a crash nor a storefront that repeats itself makes one of two.

// Mail is what one look into the mailbox brought.
type Mail struct {
	Taken   int     // messages that were understood and kept
	Refused []error // why others were not: each wraps a code, ErrUntrue or policies.ErrMalformed
}

// addressed is what seal and open need of a pointer to a document.
type addressed[T any] interface {
	*T
	envelope.Document
	Validate() error
	Address() *consent.Addressed
}

// address begins a document to another party.
func (d *device) address(docType string, to policies.IdentityID, answers policies.Hash, life time.Duration) consent.Addressed {
	return consent.Addressed{Header: policies.NewHeader(docType, d.now()), From: d.id, To: to, Answers: answers, Expires: d.now().Add(life).Unix()}
}

// seal signs a document and seals it to whom it is for.
func seal[T any, D addressed[T]](d *device, to *policies.Identity, doc D) (*envelope.Envelope, api.Message, error) {
	e, err := policies.Sign[T](d.signing, doc)
	if err != nil {
		return nil, api.Message{}, err
	}
	a := doc.Address()
	info, err := pre.MessageInfo(e.Type, a.From, a.To)
	if err != nil {
		return nil, api.Message{}, err
	}
	sealed, err := pre.SealBlob(to.KEMKey, info, e.Raw)
	if err != nil {
		return nil, api.Message{}, fmt.Errorf("sealing a message: %w", err)
	}
	if len(sealed) > api.MaxMessage {
		return nil, api.Message{}, fmt.Errorf("%w: the message has %d bytes sealed, at most %d are allowed; ask for fewer fields at once", policies.CodeTooLarge, len(sealed), api.MaxMessage)
	}
	return e, api.Message{From: a.From, To: a.To, Type: e.Type, Expires: a.Expires, Sealed: sealed}, nil
}

// formerKEM is a key that messages were sealed to before this identity replaced its keys.
type formerKEM struct {
	Seed  []byte `json:"seed"`
	Until int64  `json:"until"` // Unix seconds
}

// keepKEM keeps what opens messages that are on their way while the keys of a root are replaced, for as long as the storefront keeps a message. It opens nothing else. A thief of
// the root has it too, so what was sealed to it is no secret to a thief with the storefront's help; whose word a message is its signature says, not its seal. Senders look for newer keys.
func (b *base) keepKEM(root *pre.Root, now time.Time) {
	seed := root.KEMSeed()
	b.FormerKEM = append(b.FormerKEM, formerKEM{seed[:], now.Add(api.MaxMessageLife).Unix()})
}

// forgetKEM drops the keys that no message can be under way to any more.
func (b *base) forgetKEM(now time.Time) {
	b.FormerKEM = slices.DeleteFunc(b.FormerKEM, func(f formerKEM) bool {
		over := now.Unix() >= f.Until
		if over {
			clear(f.Seed)
		}
		return over
	})
}

// unseal opens what a message holds. What it returns is not verified.
func (d *device) unseal(m *api.Message) (*envelope.Envelope, error) {
	e, err := d.unsealWith(d.root.KEMSeed(), m)
	for _, f := range d.base.FormerKEM {
		if err != nil && len(f.Seed) == 32 && d.now().Unix() < f.Until {
			e, err = d.unsealWith([32]byte(f.Seed), m)
		}
	}
	return e, err
}

// unsealWith is unseal with one key: one before the newest, say, to which a message on its way was sealed.
func (d *device) unsealWith(seed [32]byte, m *api.Message) (*envelope.Envelope, error) {
	if m.To != d.id {
		return nil, fmt.Errorf("%w: a message for somebody else", ErrUntrue)
	}
	info, err := pre.MessageInfo(m.Type, m.From, m.To)
	if err != nil {
		return nil, err
	}
	key := pre.NewBlobKey(seed)
	defer key.Zero()
	raw, err := key.Open(info, m.Sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: a message: its seal %w", ErrUntrue, err)
	}
	e, err := envelope.Parse(raw)
	if err != nil {
		return nil, err
	}
	if e.Type != m.Type {
		return nil, fmt.Errorf("%w: a message of another type than its seal says", ErrUntrue)
	}
	return e, nil
}

// verify opens the document in a message: signed by who the seal says, for this device, and not too old.
func verify[T any, D addressed[T]](d *device, m *api.Message, e *envelope.Envelope, from *policies.Identity) (D, error) {
	key, err := from.Key()
	if err != nil {
		return nil, err
	}
	doc, err := policies.Open[T, D](e, key)
	if err != nil {
		return nil, err
	}
	a := D(doc).Address()
	if a.From != m.From || a.To != d.id {
		return nil, fmt.Errorf("%w: a message was sealed by another than who signed it, or signed for another", ErrUntrue)
	}
	if d.now().Unix() >= a.Expires {
		return nil, fmt.Errorf("a message: %w", policies.CodeExpired)
	}
	return D(doc), nil
}

// outgoing is a message of an owner's that is to be sent, and what it takes to seal it anew.
type outgoing struct {
	api.Message
	Raw jsontext.Value `json:"raw,omitzero"` // the envelope within
	Key policies.Hash  `json:"key,omitzero"` // SHA-256 of the key that it is sealed to
}

func outgoingOf(e *envelope.Envelope, m api.Message, to *policies.Identity) outgoing {
	return outgoing{m, e.Raw, policies.HashKey(to.KEMKey)}
}

// sealMessageAnew seals a message that waits anew, if its receiver has other keys by now: what is sealed to keys that were replaced a thief may read. It reports whether it did.
func (o *Owner) sealMessageAnew(ctx context.Context, m *outgoing) (bool, error) {
	c, ok := o.contact(policies.ReaderID(m.To))
	if !ok || m.Raw == nil {
		return false, nil
	}
	line, err := lineOf(c.Identity, c.Successions)
	if err != nil {
		return false, err
	}
	if line, _, err = o.successions(ctx, line); err != nil {
		return false, err
	}
	key := line.Newest().KEMKey
	if policies.HashKey(key) == m.Key {
		return false, nil
	}
	info, err := pre.MessageInfo(m.Type, m.From, m.To)
	if err != nil {
		return false, err
	}
	sealed, err := pre.SealBlob(key, info, m.Raw)
	if err != nil {
		return false, fmt.Errorf("sealing a message: %w", err)
	}
	m.Sealed, m.Key = sealed, policies.HashKey(key)
	return true, nil
}

// fetchMail is one page of what waits. It waits at most so long if there is nothing.
func (d *device) fetchMail(ctx context.Context, wait time.Duration) (*api.Messages, error) {
	q := url.Values{}
	if s := int(min(wait, api.MaxMessageWait).Seconds()); s > 0 {
		q.Set("wait", strconv.Itoa(s))
	}
	page := new(api.Messages)
	if err := d.wire.call(ctx, request{method: "GET", path: api.PathMessages, query: q, out: page, login: true}); err != nil {
		return nil, fmt.Errorf("fetching messages: %w", err)
	}
	return page, nil
}

// dropMail tells the storefront that messages up to a number are saved here.
func (d *device) dropMail(ctx context.Context, through uint64) error {
	q := url.Values{"through": {strconv.FormatUint(through, 10)}}
	if err := d.wire.call(ctx, request{method: "DELETE", path: api.PathMessages, query: q, login: true}); err != nil {
		return fmt.Errorf("deleting messages: %w", err)
	}
	return nil
}

// maxPages is how many pages of messages are fetched in one go, more than a full mailbox of an honest storefront has: one whose messages never end would
// hold its caller for ever.
const maxPages = 100

// collect fetches messages and hands each to take, page by page. keep saves what was taken. An error of take that says the storefront is not reachable
// stops it before that message; any other refuses the message. Messages that the storefront was told to delete and serves again are ErrUntrue.
func (d *device) collectMail(ctx context.Context, wait time.Duration, take func(context.Context, *api.Message) error, keep func() error) (mail Mail, err error) {
	var deleted uint64
	for range maxPages {
		page, err := d.fetchMail(ctx, wait)
		if err != nil || len(page.Messages) == 0 {
			return mail, err
		}
		if page.Messages[0].Number <= deleted {
			return mail, fmt.Errorf("%w: the storefront serves messages that it was told to delete", ErrUntrue)
		}
		through, stop := uint64(0), error(nil)
		for i := range page.Messages {
			m := &page.Messages[i]
			err := take(ctx, &m.Message)
			if temporary(err) {
				stop = err
				break
			}
			through = max(through, m.Number)
			if err != nil {
				mail.Refused = append(mail.Refused, fmt.Errorf("%s from %s: %w", m.Type, m.From, err))
				continue
			}
			mail.Taken++
		}
		if err := keep(); err != nil {
			return mail, err
		}
		if through > 0 {
			if err := d.dropMail(ctx, through); err != nil {
				return mail, err
			}
			deleted = through
		}
		if stop != nil || !page.More {
			return mail, stop
		}
		wait = 0
	}
	return mail, nil
}

// temporary reports whether an error says nothing about what was asked, only that it could not be asked now.
func temporary(err error) bool {
	for _, code := range []policies.Code{policies.CodeUnavailable, policies.CodeRateLimited, policies.CodeMailboxFull, policies.CodeInternal, policies.CodeUnauthorized} {
		if errors.Is(err, code) {
			return true
		}
	}
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// distrust is ErrUntrue with what is wrong, unless that could not be found out because a part does not answer.
func distrust(err error) error {
	if temporary(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUntrue, err)
}

// send posts a message. One that nobody can get any more is dropped.
func (d *device) send(ctx context.Context, m *api.Message) error {
	if d.now().Unix() >= m.Expires {
		return nil
	}
	if err := d.wire.call(ctx, request{method: "POST", path: api.PathMessages, in: m, login: true}); err != nil {
		return fmt.Errorf("sending a message: %w", err)
	}
	return nil
}

// Consent is a request for consent and what became of it, as one of the two parties knows it. Names are those of OAuth and CIBA where these have one.
type Consent struct {
	ID       policies.DocumentID  `json:"auth_req_id"`
	Request  policies.Hash        `json:"request"`
	Party    policies.IdentityID  `json:"party"`           // the other one
	Source   policies.IdentityID  `json:"source,omitzero"` // of a specification: who is to deposit the fields
	Alias    string               `json:"alias,omitzero"`
	Name     string               `json:"name,omitzero"` // what the other one calls itself; From says whether anybody verified it
	From     Contact              `json:"from,omitzero"` // of a request to this device: who asks
	Status   consent.State        `json:"status"`
	Asked    []consent.AskedField `json:"authorization_details"`
	Purpose  consent.Purpose      `json:"purpose"`
	Duration int64                `json:"requested_duration"` // seconds
	Time     time.Time            `json:"time"`
	Expires  time.Time            `json:"expires"`           // of the request
	Fields   []policies.Field     `json:"granted,omitempty"` // and not withdrawn
	Until    time.Time            `json:"until,omitzero"`    // when what is granted ends
	Hidden   bool                 `json:"hidden,omitzero"`
	Waits    bool                 `json:"waits,omitzero"` // decided, and the answer or the request is still on its way to the storefront
	Receipts Receipts             `json:"receipts,omitzero"`

	SourceAlias string `json:"source_alias,omitzero"`
	Order       string `json:"order,omitzero"` // of a specification, at the requester: "here", "forwarded"
}
