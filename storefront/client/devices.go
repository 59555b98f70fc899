package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/pairing"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// A second device, by approval on the first. Package policies/pairing has the meeting and why nobody can be in between; here both sides of it carry it over the storefront.

// ErrNotSame: the words that two devices show do not agree, so somebody may be in between. Nothing was handed over, or used.
var ErrNotSame = errors.New("the two devices do not show the same, so they do not talk to each other")

// meetingPause is how long a device waits before it looks again what the other one said.
const meetingPause = 500 * time.Millisecond

// handover is what a new device is given: what a backup holds, but for the recovery key, which stays where it is; and the account at a key server.
type handover struct {
	Profile jsontext.Value `json:"profile"`
	Account accountState   `json:"account,omitzero"`
}

// NewDevice is a device that has nothing yet but a join link.
type NewDevice struct {
	network    Network
	options    Options
	wire       *wire
	key        *pre.BlobKey
	code       pairing.Code
	opening    pairing.Opening
	answer     pairing.Answer
	transcript pairing.Transcript
}

// BeginDevice has a new device wait for the first one, under a code that the person types there.
func BeginDevice(ctx context.Context, network Network, o Options) (*NewDevice, error) {
	w, err := newWire(network.with(o), policies.IdentityID{}, nil, nil, nil)
	if err != nil {
		return nil, err
	}
	var seed [32]byte
	rand.Read(seed[:]) // never fails (crypto/rand)
	defer clear(seed[:])
	d := &NewDevice{network: network, options: o, wire: w, key: pre.NewBlobKey(seed), code: pairing.NewCode()}
	d.opening = pairing.Opening{Key: d.key.Public(), Nonce: make([]byte, pairing.NonceSize)}
	rand.Read(d.opening.Nonce)
	offer := api.DeviceOffer{Commitment: d.opening.Commitment(d.code)}
	if err := w.call(ctx, request{method: "POST", path: meetingPath(api.PathDeviceOffer, d.code), in: offer}); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Close forgets the key.
func (d *NewDevice) Close() {
	d.key.Zero()
	d.wire.http.CloseIdleConnections()
}

// Code is what the person types into the first device.
func (d *NewDevice) Code() string { return d.code.String() }

// Meet waits for the first device, and returns the word that the person types there. Only then does the new device say which key it has.
func (d *NewDevice) Meet(ctx context.Context) (word string, err error) {
	if err := await(ctx, d.wire, api.PathDeviceAnswer, d.code, &d.answer); err != nil {
		return "", err
	}
	if err := d.answer.Validate(); err != nil {
		return "", fmt.Errorf("%w: %w", ErrUntrue, err)
	}
	d.transcript = pairing.Meet(d.code, &d.opening, &d.answer)
	if err := d.wire.call(ctx, request{method: "POST", path: meetingPath(api.PathDeviceOpening, d.code), in: d.opening}); err != nil {
		return "", err
	}
	return d.transcript.First(), nil
}

// Finish takes the word that the first device shows after it was told the new one's, and makes this device one of that person. A word that is not the same is [ErrNotSame], and nothing is kept.
// Sync then fetches what was published and granted.
func (d *NewDevice) Finish(ctx context.Context, word string, store MirrorStore) (*Owner, error) {
	if !pairing.Same(word, d.transcript.Second()) {
		return nil, ErrNotSame
	}
	var in api.DeviceProfile
	if err := await(ctx, d.wire, api.PathDeviceProfile, d.code, &in); err != nil {
		return nil, err
	}
	plain, err := d.key.Open(d.transcript.Info(), in.Sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: what was handed over: its seal %w", ErrUntrue, err)
	}
	defer clear(plain)
	var h handover
	if err := envelope.Decode(plain, &h); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUntrue, err)
	}
	defer clear(h.Profile)
	b, err := parseBackup(h.Profile, roleOwner)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUntrue, err)
	}
	line, err := lineOf(b.Identity, b.Successions)
	if err != nil || line.ID != policies.IdentityID(d.answer.Owner) {
		return nil, fmt.Errorf("%w: what was handed over is of somebody else than the first device said", ErrUntrue)
	}
	return restored(store, b, h.Account, d.network, d.options)
}

// Approval is a new device that the first one has met.
type Approval struct {
	owner      *Owner
	code       pairing.Code
	opening    pairing.Opening
	transcript pairing.Transcript
}

// MeetDevice meets the new device whose code the person typed. It waits until the new device has shown what it committed to. Nothing is handed over.
func (o *Owner) MeetDevice(ctx context.Context, code string) (_ *Approval, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	if err := o.changing(); err != nil {
		return nil, err
	}
	c, err := pairing.ParseCode(code)
	if err != nil {
		return nil, err
	}
	var offer api.DeviceOffer
	if err := o.wire.call(ctx, request{method: "GET", path: meetingPath(api.PathDeviceOffer, c), out: &offer}); errors.Is(err, policies.CodeNotFound) {
		return nil, fmt.Errorf("%w: %w", ErrNoDevice, err)
	} else if err != nil {
		return nil, err
	}
	answer := pairing.Answer{Owner: o.ID(), Nonce: make([]byte, pairing.NonceSize)}
	rand.Read(answer.Nonce) // never fails (crypto/rand)
	if err := o.wire.call(ctx, request{method: "POST", path: meetingPath(api.PathDeviceAnswer, c), in: answer, login: true}); err != nil {
		return nil, err
	}
	a := &Approval{owner: o, code: c}
	if err := await(ctx, o.wire, api.PathDeviceOpening, c, &a.opening); err != nil {
		return nil, err
	}
	if a.opening.Validate() != nil || a.opening.Commitment(c) != offer.Commitment {
		return nil, fmt.Errorf("%w: the new device shows something else than it had committed to", ErrUntrue)
	}
	a.transcript = pairing.Meet(c, &a.opening, &answer)
	return a, nil
}

// Approve takes the word that the new device shows. If it is the same here, the new device is given all that this one has but the recovery key, sealed to it alone; the word that
// comes back is for the person to type there. If not, it is [ErrNotSame], and nothing leaves this device.
func (a *Approval) Approve(ctx context.Context, word string) (answer string, err error) {
	if !pairing.Same(word, a.transcript.First()) {
		return "", ErrNotSame
	}
	o := a.owner
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.changing(); err != nil { // begun since they met
		return "", err
	}
	b, err := o.backup()
	if err != nil {
		return "", err
	}
	b.Recovery = nil
	var sealed []byte
	err = b.write(func(profile []byte) error {
		plain, err := json.Marshal(handover{Profile: profile, Account: o.state.Account}, json.Deterministic(true))
		if err != nil {
			return err
		}
		defer clear(plain)
		sealed, err = pre.SealBlob(a.opening.Key, a.transcript.Info(), plain)
		return err
	})
	if err != nil {
		return "", err
	}
	if len(sealed) > api.MaxDeviceProfile {
		return "", fmt.Errorf("%w: the profile has %d bytes, and a meeting takes %d; use a backup file", policies.CodeTooLarge, len(sealed), api.MaxDeviceProfile)
	}
	in := api.DeviceProfile{Sealed: sealed}
	if err := o.wire.call(ctx, request{method: "POST", path: meetingPath(api.PathDeviceProfile, a.code), in: in, login: true}); err != nil {
		return "", err
	}
	return a.transcript.Second(), nil
}

// changing refuses while one root takes another's place, or is announced to. What is left of the one before after that is handed over with the newest: what writers wrote may be under it for long.
func (o *Owner) changing() error {
	switch announces := o.announces(); {
	case o.former != nil && !o.state.Moved, o.state.Replacing != nil && !announces:
		return ErrReplacing
	case announces:
		return ErrAnnounced
	}
	return nil
}

var (
	// ErrNoDevice: no new device waits under the code that was typed.
	ErrNoDevice = errors.New("no new device waits with this code")
	// ErrAlone: the other device did not come in time. It is policies.CodeUnavailable too.
	ErrAlone = errors.New("the other device did not come in time")
)

func meetingPath(pattern string, c pairing.Code) string {
	return strings.ReplaceAll(pattern, "{code}", c.String())
}

// await asks for what the other device leaves until it is there.
func await(ctx context.Context, w *wire, pattern string, c pairing.Code, out any) error {
	for {
		err := w.call(ctx, request{method: "GET", path: meetingPath(pattern, c), out: out})
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && err != nil {
			return fmt.Errorf("%w: %w: %w", ErrAlone, policies.CodeUnavailable, ctx.Err())
		}
		if !errors.Is(err, policies.CodeNotFound) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(meetingPause):
		}
	}
}
