package api

import "github.com/sallyport/sallyport/policies"

// Where two devices of one person meet, under the code of the new one. Package policies/pairing says what they tell each other, and why the storefront, which sees all of it,
// learns nothing and can be nobody of them. Each part is left once; the same again is no error. GET, no login, gives what was left; not_found: nothing yet.
const (
	PathDeviceOffer   = "/v1/devices/{code}/offer"   // POST, no login, [DeviceOffer]: 201
	PathDeviceAnswer  = "/v1/devices/{code}/answer"  // POST, any login, pairing.Answer: 201
	PathDeviceOpening = "/v1/devices/{code}/opening" // POST, no login, pairing.Opening: 201
	PathDeviceProfile = "/v1/devices/{code}/profile" // POST, the login of the answer, [DeviceProfile]: 201
)

// MaxDeviceProfile is the length of the longest sealed profile in bytes.
const MaxDeviceProfile = 1 << 20

// DeviceOffer is what a new device commits to.
type DeviceOffer struct {
	Commitment policies.Hash `json:"commitment"`
}

// DeviceProfile is what the first device hands over, sealed to the new one.
type DeviceProfile struct {
	Sealed []byte `json:"sealed"`
}
