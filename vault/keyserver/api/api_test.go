package api

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/vault/pre/password"
)

func question() *Question {
	return &Question{Header: policies.NewHeader("key-question", time.Now()), Audience: policies.VaultID{1}, Owner: policies.OwnerID{2}, Act: ActPrepare, Blinded: make([]byte, 32)}
}

func account() *Account {
	return &Account{
		Header: policies.NewHeader("key-account", time.Now()), Audience: policies.VaultID{1}, Owner: policies.OwnerID{2}, Version: 2, Prev: policies.Hash{3},
		Profile:  make([]byte, 28),
		Password: &PasswordLock{Key: policies.DocumentID{4}, Salt: make([]byte, password.SaltSize), Verifier: policies.Hash{5}, Wrapped: make([]byte, wrappedSize)},
		Kit:      &KitLock{Verifier: policies.Hash{6}, Wrapped: make([]byte, wrappedSize)},
	}
}

func TestQuestion(t *testing.T) {
	for name, change := range map[string]func(*Question){
		"another type": func(d *Question) { d.Type = "key-account" }, "no id": func(d *Question) { d.ID = policies.DocumentID{} }, "no time": func(d *Question) { d.Time = 0 },
		"another suite": func(d *Question) { d.Suite = "SP2" }, "no server": func(d *Question) { d.Audience = policies.VaultID{} }, "no owner": func(d *Question) { d.Owner = policies.OwnerID{} },
		"an unknown act": func(d *Question) { d.Act = "burn" }, "nothing blinded": func(d *Question) { d.Blinded = nil }, "too short": func(d *Question) { d.Blinded = d.Blinded[1:] },
		"blinded for nothing": func(d *Question) { d.Act = ActState }, "a serial number for nothing": func(d *Question) { d.Serial = 1 },
	} {
		d := question()
		if err := d.Validate(); err != nil {
			t.Fatal(err)
		}
		if change(d); !errors.Is(d.Validate(), policies.ErrMalformed) {
			t.Errorf("%s: %v", name, d.Validate())
		}
	}
	d, at := question(), time.Unix(1_800_000_000, 0)
	d.Time = at.Unix()
	for after, want := range map[time.Duration]error{0: nil, -policies.ClockSkew: nil, -policies.ClockSkew - time.Second: policies.CodeExpired, Lifetime + policies.ClockSkew: nil, Lifetime + policies.ClockSkew + time.Second: policies.CodeExpired} {
		if err := d.Live(at.Add(after)); err != want {
			t.Errorf("after %s: %v", after, err)
		}
	}
}

func TestAccount(t *testing.T) {
	for name, change := range map[string]func(*Account){
		"another type": func(d *Account) { d.Type = "key-question" }, "no server": func(d *Account) { d.Audience = policies.VaultID{} }, "no owner": func(d *Account) { d.Owner = policies.OwnerID{} },
		"no version": func(d *Account) { d.Version = 0 }, "a first one over another": func(d *Account) { d.Version = 1 }, "a second one over none": func(d *Account) { d.Prev = policies.Hash{} },
		"no profile": func(d *Account) { d.Profile = nil }, "too large": func(d *Account) { d.Profile = make([]byte, MaxProfile+1) },
		"no token key": func(d *Account) { d.Password.Key = policies.DocumentID{} }, "a short salt": func(d *Account) { d.Password.Salt = d.Password.Salt[1:] },
		"no verifier": func(d *Account) { d.Password.Verifier = policies.Hash{} }, "a short wrapping": func(d *Account) { d.Password.Wrapped = d.Password.Wrapped[1:] },
		"a sheet without a verifier": func(d *Account) { d.Kit.Verifier = policies.Hash{} }, "a sheet's short wrapping": func(d *Account) { d.Kit.Wrapped = nil },
	} {
		d := account()
		if err := d.Validate(); err != nil {
			t.Fatal(err)
		}
		if change(d); !errors.Is(d.Validate(), policies.ErrMalformed) {
			t.Errorf("%s: %v", name, d.Validate())
		}
	}
}

// FuzzQuestion and FuzzAccount: what is read is valid, and says the same when it is written again.
func FuzzQuestion(f *testing.F) { fuzz[Question](f, question()) }

func FuzzAccount(f *testing.F) { fuzz[Account](f, account()) }

func fuzz[T any, D interface {
	*T
	envelope.Document
	Validate() error
}](f *testing.F, valid D) {
	key := envelope.NewPrivateKey(&[envelope.SeedSize]byte{1})
	e, err := envelope.Seal(key, valid)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Payload)
	f.Add([]byte(`{"type":"key-question"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		d := D(new(T))
		if envelope.Decode(payload, d) != nil || d.Validate() != nil {
			return
		}
		e, err := envelope.Seal(key, d)
		if err != nil {
			t.Fatal(err)
		}
		again, err := policies.Open[T, D](e, key.Public())
		if err != nil {
			t.Fatal(err)
		}
		if e2, err := envelope.Seal(key, D(again)); err != nil || !bytes.Equal(e.Payload, e2.Payload) {
			t.Fatalf("%s becomes %s", e.Payload, e2.Payload)
		}
	})
}
