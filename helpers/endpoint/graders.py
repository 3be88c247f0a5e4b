class GraderError(ValueError):
    def __init__(self, message, param):
        super().__init__(message)
        self.message, self.param = message, param


def check(grader, param="grader"):
    pass


def run(grader, item, sample_text):
    return {}


def reward(grader, item, sample_text):
    return float(len(sample_text) % 7)
