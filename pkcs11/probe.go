package pkcs11

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"slices"

	"github.com/sallyport/sallyport/pkcs11/internal/cryptoki"
)

// Findings are what the light probe found, for journal and transcript.
type Findings struct {
	Token Info `json:"token"`
	// Derives: which forms of C_DeriveKey give the right answer.
	Derives []DeriveFinding `json:"derives"`
	// Points: what the token does with points it should refuse.
	Points []PointFinding `json:"points"`
	// Keys are the ceremony keys that exist, as they read now, with every sealing key.
	Keys []KeyReport `json:"keys"`
	// Strangers is how many private EC keys the token holds that are neither a
	// ceremony key nor, by label and CKA_ID, a re-encryption key. One that the
	// host renamed is among them; it should be 0.
	Strangers int `json:"strangers,omitzero"`
	// Decoys is how many keys call themselves sealing keys and are not trusted.
	// They are not used; it should be 0.
	Decoys int `json:"decoys,omitzero"`
}

// A DeriveFinding is one form of C_DeriveKey: the point's encoding, and whether
// the template named the result's length.
type DeriveFinding struct {
	Point    string `json:"point"`
	ValueLen bool   `json:"value_len"`
	Works    bool   `json:"works"`
	Got      string `json:"got,omitempty"` // why not
}

// A PointFinding is a bad point given straight to the token. One that is
// accepted is a finding and not an error: the vault checks points itself.
type PointFinding struct {
	Point   string `json:"point"`
	Refused bool   `json:"refused"`
}

// Probe is the light probe of each start. It makes a session key in the token,
// derives with a software key's point and compares with software's own ECDH;
// every combination of encoding and length, so that the journal tells when a
// module changes. It gives the token bad points. It reads every ceremony key's
// attributes back.
//
// The known answer rests on a key that the token generates and not on a fixed
// scalar: to bring a fixed one in would need the import key, whose template
// makes token objects, and a probe must leave nothing behind whatever happens.
//
// It fails if the profile's own form of C_DeriveKey does not give the right
// answer (ErrTokenBroken) or a key's attributes differ (ErrAttributes).
func (t *Token) Probe(ctx context.Context) (Findings, error) {
	f := Findings{Token: t.info}
	err := t.do(ctx, t.slow, "probing token", func(session cryptoki.Session) error {
		return t.fresh(func(s cryptoki.Session) error { return t.probe(s, &f) })
	})
	if err != nil {
		return f, err
	}
	for _, name := range []KeyName{ImportResident, ImportSealed, LogKey, StoreKey} {
		r, err := t.Inspect(ctx, name)
		if errors.Is(err, ErrKeyMissing) {
			continue
		}
		if err != nil {
			return f, err
		}
		f.Keys = append(f.Keys, r)
	}
	sealing, decoys, err := t.InspectSealing(ctx)
	f.Keys, f.Decoys = append(f.Keys, sealing...), decoys
	if err != nil {
		return f, err
	}
	f.Strangers, err = t.strangers(ctx)
	return f, err
}

func (t *Token) strangers(ctx context.Context) (n int, err error) {
	err = t.do(ctx, t.slow, "counting keys", func(s cryptoki.Session) error {
		found, err := t.module.Find(s, []cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_PRIVATE_KEY),
			cryptoki.Ulong(cryptoki.CKA_KEY_TYPE, cryptoki.CKK_EC), cryptoki.Bool(cryptoki.CKA_TOKEN, true)})
		if err != nil {
			return err
		}
		t.mu.RLock()
		defer t.mu.RUnlock()
		known := make(map[cryptoki.Object]bool, len(t.keys)+1)
		for _, o := range t.keys {
			known[o] = true
		}
		known[t.named[LogKey]] = true
		for _, o := range found {
			if known[o] {
				continue
			}
			label, err := t.module.Read(s, o, cryptoki.CKA_LABEL)
			if err == nil && string(label.Value) == rekeyLabel || err == cryptoki.CKR_OBJECT_HANDLE_INVALID {
				continue // imported or destroyed by another process since
			}
			n++
		}
		return nil
	})
	return n, err
}

// InspectSealing reads back every sealing key that the token holds now, in the
// order of their periods. It works for User and Officer, since sealing keys are
// public objects. One that is not as it must be is ErrAttributes; decoys are
// counted, as SealingKeys does.
func (t *Token) InspectSealing(ctx context.Context) (reports []KeyReport, decoys int, err error) {
	var periods []uint32
	err = t.do(ctx, t.slow, "looking for sealing keys", func(s cryptoki.Session) error {
		found, err := t.module.Find(s, []cryptoki.Attribute{cryptoki.Ulong(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY), cryptoki.Bool(cryptoki.CKA_TOKEN, true)})
		if err != nil {
			return err
		}
		for _, o := range found {
			label, err := t.module.Read(s, o, cryptoki.CKA_LABEL)
			if err == cryptoki.CKR_OBJECT_HANDLE_INVALID {
				continue // destroyed by another process since it was found
			}
			if err != nil {
				return err
			}
			name := KeyName(label.Value)
			if !name.sealing() {
				continue
			}
			if trusted, err := t.trusted(s, o); gone(err) {
				continue
			} else if err != nil {
				return err
			} else if !trusted {
				decoys++
				continue
			}
			period, ok := name.Period()
			if !ok {
				return &AttributeError{Key: name, Attribute: "CKA_LABEL", Want: "that of a period", Got: string(name)}
			}
			periods = append(periods, period)
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	slices.Sort(periods)
	for _, period := range slices.Compact(periods) { // two of one name: Inspect refuses them
		r, err := t.Inspect(ctx, SealingKey(period))
		if errors.Is(err, ErrKeyMissing) {
			continue
		}
		if err != nil {
			return reports, decoys, err
		}
		reports = append(reports, r)
	}
	return reports, decoys, nil
}

// probe runs in a session of its own: the key ends with it.
func (t *Token) probe(s cryptoki.Session, f *Findings) error {
	key, point, err := sessionKey(t.module, s)
	if err != nil {
		return err
	}
	public, err := ecdh.P256().NewPublicKey(point)
	if err != nil {
		return ErrTokenBroken
	}
	peer, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	want, err := peer.ECDH(public)
	if err != nil {
		return err
	}
	usable := false
	for _, form := range []DeriveFinding{{Point: PointRaw}, {Point: PointRaw, ValueLen: true}, {Point: PointDER}, {Point: PointDER, ValueLen: true}} {
		p := t.profile
		p.Point, p.ValueLen = form.Point, form.ValueLen
		x, err := derive(t.module, s, key, p.encode(peer.PublicKey().Bytes()), derivedTemplate(p.ValueLen))
		switch {
		case err != nil:
			form.Got = err.Error()
		case !bytes.Equal(x[:], want):
			form.Got = "a wrong value"
		default:
			form.Works = true
			usable = usable || p.Point == t.profile.Point && p.ValueLen == t.profile.ValueLen
		}
		f.Derives = append(f.Derives, form)
	}
	offCurve := bytes.Clone(peer.PublicKey().Bytes())
	offCurve[64] ^= 1
	for _, bad := range []struct {
		name  string
		point []byte
	}{
		{"off the curve", offCurve},
		{"infinity", []byte{0x00}},
		{"zero", append([]byte{0x04}, make([]byte, 64)...)},
		{"coordinates above the field", append([]byte{0x04}, bytes.Repeat([]byte{0xff}, 64)...)},
		{"cut short", peer.PublicKey().Bytes()[:64]},
	} {
		_, err := derive(t.module, s, key, t.profile.encode(bad.point), t.template)
		f.Points = append(f.Points, PointFinding{Point: bad.name, Refused: err != nil})
	}
	// The token must have survived that.
	if !usable || !t.canary.sings(t.module, s) {
		return ErrTokenBroken
	}
	return nil
}
