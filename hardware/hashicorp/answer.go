package hashicorp

import (
	"bytes"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/vault/api"
)

// Bounds of what is read from the server, in bytes.
const (
	maxAnswer = 1 << 17
	maxSecret = 1024
)

// An answer is the body of a response, in one buffer and nowhere else.
type answer []byte

// readAnswer reads and closes the body. The caller zeroes what it returns.
func readAnswer(r *api.Response) (answer, error) {
	defer r.Body.Close()
	buffer := make([]byte, maxAnswer+1)
	n, err := io.ReadFull(r.Body, buffer) // in place: nothing grows, so nothing is left behind
	switch {
	case err == nil:
		clear(buffer)
		return nil, fmt.Errorf("%w: an answer of more than %d bytes", ErrAnswer, maxAnswer)
	case err != io.ErrUnexpectedEOF && err != io.EOF:
		clear(buffer)
		return nil, fmt.Errorf("%w: reading the answer: %w", ErrAway, err)
	}
	return buffer[:n], nil
}

// Zero overwrites the answer.
func (a answer) Zero() { clear(a) }

// member finds a value by the names that lead to it. It is a part of a, not a copy. Without one it is nil and no error: that is an
// answer, too.
func (a answer) member(names ...string) (jsontext.Value, error) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(a)) // which decodes in a's own memory
	var found jsontext.Value
	for depth := 0; ; {
		token, err := dec.ReadToken()
		if err != nil {
			return nil, garbled(err)
		}
		if token.Kind() != '{' {
			return nil, nil
		}
	members:
		for {
			name, err := dec.ReadToken()
			if err != nil {
				return nil, garbled(err)
			}
			switch {
			case name.Kind() == '}':
				return nil, nil
			case name.String() != names[depth]:
				if err := dec.SkipValue(); err != nil {
					return nil, garbled(err)
				}
			case depth+1 < len(names):
				depth++
				break members
			default:
				if found, err = dec.ReadValue(); err != nil {
					return nil, garbled(err)
				}
				return found, nil
			}
		}
	}
}

// garbled keeps the decoder's words, which may quote the answer, out of the error.
func garbled(error) error { return fmt.Errorf("%w: not JSON", ErrAnswer) }

// secret is the string at a place, as bytes of its own. The caller zeroes it.
func (a answer) secret(names ...string) ([]byte, error) {
	value, err := a.member(names...)
	if err != nil {
		return nil, err
	}
	name := names[len(names)-1]
	switch {
	case value == nil || value.Kind() == 'n':
		return nil, fmt.Errorf("%w: no field %q", ErrField, name)
	case value.Kind() != '"':
		return nil, fmt.Errorf("%w: the field %q is not a text in quotes", ErrField, name)
	}
	b, err := jsontext.AppendUnquote(make([]byte, 0, len(value)), value) // never longer than quoted, so it does not grow
	if err != nil {
		clear(b)
		return nil, garbled(err)
	}
	if len(b) == 0 || len(b) > maxSecret || bytes.ContainsAny(b, "\x00\r\n") {
		clear(b[:cap(b)])
		return nil, fmt.Errorf("%w: the field %q must hold one line of 1 to %d bytes", ErrField, name, maxSecret)
	}
	return b, nil
}

// public reads what is no secret at a place into v, if it is there.
func (a answer) public(v any, names ...string) error {
	value, err := a.member(names...)
	if err != nil || value == nil {
		return err
	}
	if err := json.Unmarshal(value, v); err != nil {
		return garbled(err)
	}
	return nil
}

// object writes a JSON object of strings. The caller zeroes it.
func object(pairs ...[]byte) ([]byte, error) {
	size := 2
	for _, p := range pairs {
		size += 6*len(p) + 4 // \u00XX for each byte at the worst
	}
	b := append(make([]byte, 0, size), '{')
	for i, p := range pairs {
		var err error
		if b, err = jsontext.AppendQuote(b, p); err != nil {
			clear(b[:cap(b)])
			return nil, fmt.Errorf("%w: not UTF-8", ErrConfig)
		}
		switch {
		case i%2 == 0:
			b = append(b, ':')
		case i+1 < len(pairs):
			b = append(b, ',')
		}
	}
	return append(b, '}'), nil
}
