package vectors

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/vault/pre/password"
)

// attempt is a password of a case, blinded.
func (v *values) attempt() (*password.Attempt, error) {
	a, err := password.NewAttempt(policies.OwnerID(v.bytes("account")), v.bytes("password"), bytes.NewReader(v.bytes("random")))
	if errors.Is(err, password.ErrSize) {
		err = fmt.Errorf("%w: %w", policies.ErrMalformed, err)
	}
	return a, err
}

// locks are what a case's keys prove and wrap.
func (v *values) locks(k *password.Keys) (outputs, error) {
	proof := k.Proof()
	verifier := password.Verifier(policies.OwnerID(v.bytes("account")), proof)
	wrapped, err := k.Wrap(v.bytes("secret"), bytes.NewReader(v.bytes("nonce")))
	if err != nil {
		return nil, err
	}
	if plain, err := k.Unwrap(wrapped); err != nil || !bytes.Equal(plain, v.bytes("secret")) {
		return nil, errors.New("what was wrapped does not open")
	}
	return outputs{"proof": proof[:], "verifier": verifier[:], "wrapped": wrapped}, nil
}

// passwordOperations go through the public functions of package password. The server's part, which a token plays, is the reference's.
var passwordOperations = map[string]func(*values) (outputs, error){
	"password": func(v *values) (outputs, error) {
		a, err := v.attempt()
		if err != nil {
			return nil, err
		}
		blinded := a.Blinded()
		point, err := password.Point(blinded)
		if err != nil {
			return nil, err
		}
		answer := mulX(v.bytes("k"), compress(point[:]))
		k, err := a.Keys([32]byte(answer), [password.SaltSize]byte(v.bytes("salt")))
		if err != nil {
			return nil, err
		}
		out, err := v.locks(k)
		if err == nil {
			out["blinded"], out["answer"] = blinded[:], answer
		}
		return out, err
	},
	"answer": func(v *values) (outputs, error) {
		a, err := v.attempt()
		if err != nil {
			return nil, err
		}
		_, err = a.Keys([32]byte(v.bytes("answer")), [password.SaltSize]byte(v.bytes("salt")))
		return nil, err
	},
	"kit": func(v *values) (outputs, error) {
		kit, err := password.ParseKit(v.str("text"))
		if err != nil {
			return nil, err
		}
		out, err := v.locks(kit.Keys(policies.OwnerID(v.bytes("account"))))
		if err == nil {
			out["text"] = kit.Text()
		}
		return out, err
	},
	// What package password does with it is its own; its tests have the same vectors.
	"curve": func(v *values) (outputs, error) {
		return outputs{"point": hashToCurve(v.bytes("message"), v.bytes("domain"))}, nil
	},
}
